#!lua flags=allow-oom
--@lib
-- begin: the gate at the wire, asked when the connection is up and the request is about to be
-- written. Checks fencing, cancel, expiry, pause and hold, draws one permit of the destination's
-- bucket and marks the message begun, all in one call; for several messages, each of which stands
-- ready on a connection of its own, one after the other.
--
-- What the bucket holds, and when there is a permit, is in bucket.lua.
-- While the breaker is open only the probe passes (health.lua).
--
-- KEYS  {destination}
-- ARGV  now_us or '', run_id of the Redis that the caller's connection reached, then id, nonce and
--       bytes of the request, for each message
-- Returns for each message one of
--         {'go', wait_us, now_us, attempt}: write the first byte after wait_us
--         {'wait', us}: no permit within 250 ms; ask again then
--         {'closed', what, us or -1, why}: paused or held: give the message back or wait
--         {'gone', what}: not this batch's message (any more): cancelled, expired, fenced, paused (with
--         its campaign)
-- A merged request is asked for like a message, by +<id>.
T = KEYS[1]
local now, run = clock(ARGV[1]), ARGV[2]
--@bucket

-- The probe ends without a result: another may go at once.
local function probe_is_gone(id)
  if id ~= probe then return end
  redis.call('HDEL', K('gate'), 'probe')
  if what == 'breaker' then redis.call('HSET', K('gate'), 'hold_until', now) end
end

-- Unsent, into the wait of its campaign; a merged request's members, one by one.
local function hold_back(m, now)
  local count = weight_of(m)
  leave(m)
  bump('returned', count)
  credit_releases(count)
  if is_request(m.id) then return thaw(m, 'R', now) end
  to_ready(m)
  write(m)
  credit_tenant(m)
end

local function ask(id, nonce, size)
  local m = read(id)
  if not m or not held(m, nonce) then
    return {'gone', 'fenced'}
  end
  if not rate then look() end
  if m.flag == 'c' then
    -- Cancelled after a begin whose request was never written, for the caller asks again.
    leave(m)
    finish(m, 'C', now, m.nonce)
    bump('cancelled')
    probe_is_gone(id)
    return {'gone', 'cancelled'}
  end
  if is_over(m, now, max_age_us) then
    expire_message(m, now, max_age_us)
    probe_is_gone(id)
    return {'gone', 'expired'}
  end
  if m.cl > 0 and is_held_back(m) then
    hold_back(m, now)
    probe_is_gone(id)
    return {'gone', 'paused'}
  end
  if what and not (what == 'breaker' and id == probe) then
    return closed_now()
  end
  local wait_us, none = draw(m.prio == '0', size)
  if not wait_us then return none end
  if m.state == 'L' then
    -- From here on a merged request is judged as a whole: by its newest member, and no expiry takes
    -- one out of bytes that may have been sent.
    if m.attempts == 0 and is_request(id) then
      local newest = struct.unpack('>d', redis.call('GETRANGE', members_key(id), 8, 15))
      redis.call('SETRANGE', K('m:' .. id), 32, struct.pack('>dd', newest, 0))
    end
    m.state, m.attempts = 'B', math.min(m.attempts + 1, 65535)
    write(m)
  end
  return {'go', wait_us, now, m.attempts}
end

local replies = {}
for i = 3, #ARGV, 3 do
  replies[#replies + 1] = ask(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]))
end
write_bucket()
write_tally()
return replies
