#!lua flags=allow-oom
--@lib
-- begin: the gate at the wire, asked when the connection is up and the request is about to be
-- written. Checks fencing, cancel, expiry, pause and hold, draws one permit of the destination's
-- bucket and marks the message begun, all in one call; for several messages, each of which stands
-- ready on a connection of its own, one after the other.
--
-- The bucket holds K = burst - connections (gate.k, kept by slots), so that permits drawn but not
-- yet written, at most one a connection, never add up to more than the burst at the wire.
-- It never reserves more than 250 ms ahead, so that a pause acts at once.
-- A missing bucket starts empty, and so does one after a restart of Redis: its last draws may be
-- lost. A clock that steps back adds nothing; one that steps forward fills it:
-- at most K and what was drawn ahead, so no more than the burst.
--
-- A cap in bytes has a bucket of its own, of one second: a request may start while there is
-- anything in it, and then owes what it is larger.
-- While the breaker is open only the probe passes (health.lua).
--
-- KEYS  {destination}
-- ARGV  now_us or '', run_id of the Redis that the caller's connection reached, then id, nonce and
--       bytes of the request, for each message
-- Returns for each message one of
--         {'go', wait_us, now_us, attempt}: write the first byte after wait_us
--         {'wait', us}: no permit within 250 ms; ask again then
--         {'closed', what, us or -1, why}: paused or held: give the message back or wait
--         {'gone', what}: not this batch's message (any more): cancelled, expired, fenced
-- A merged request is asked for like a message, by +<id>.
local AHEAD_US = 250000
T = KEYS[1]
local now, run = clock(ARGV[1]), ARGV[2]
local rate, reserve, max_age_us, what, till, why, level, at, cap, reset, changed
local breaker, probe, byte_rate, byte_level

local function look()
  local cfg = redis.call('HMGET', K('cfg'), 'rate', 'reserve', 'max_age_us', 'bytes_per_s')
  reserve, max_age_us, byte_rate = tonumber(cfg[2]), tonumber(cfg[3]), tonumber(cfg[4] or 0)
  local g = redis.call('HMGET', K('gate'), 'pause_until', 'pause_why', 'hold_until', 'hold_why',
    'hold_kind', 'level', 'at', 'run', 'k', 'rate_set', 'pace', 'fill_from', 'breaker', 'probe',
    'byte_level', 'byte_at', 'breaker_why')
  rate = rate_of(cfg[1], g[10], g[11])
  what, till, why = closed(now, g)
  breaker, probe = g[13], g[14]
  if breaker and not what then what, till, why = 'breaker', now + AHEAD_US, g[17] or '' end
  if byte_rate > 0 then
    byte_level = tonumber(g[15] or 0)
    -- A cap that is new has no moment to fill from: it is written even where nothing is drawn.
    reset = not g[16]
    if g[8] ~= run then
      byte_level = math.min(byte_level, 0)
    else
      local gained = math.max(0, now - tonumber(g[16] or now)) * byte_rate / 1000000
      byte_level = math.min(byte_rate, byte_level + gained)
    end
  end
  level, at, cap = tonumber(g[6]), tonumber(g[7]), tonumber(g[9] or 0)
  if not level or g[8] ~= run then
    level, at, reset = math.min(level or 0, 0), now, true
  elseif now < at then
    level, at, reset = math.min(cap, level), now, true
  else
    local from = math.max(at, tonumber(g[12] or 0))
    level, at = math.min(cap, level + math.max(0, now - from) * rate / 1000000), now
  end
end

-- The probe ends without a result: another may go at once.
local function probe_is_gone(id)
  if id ~= probe then return end
  redis.call('HDEL', K('gate'), 'probe')
  if what == 'breaker' then redis.call('HSET', K('gate'), 'hold_until', now) end
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
  if what and not (what == 'breaker' and id == probe) then
    return {'closed', what, till == -1 and -1 or till - now, why}
  end
  changed = changed or reset
  local need = 1
  -- Where lapsed slots leave a bucket smaller than the reserve, there is none: asked for more than
  -- the bucket ever holds, a slow destination would wait for ever.
  if m.prio ~= '0' then need = math.max(1, math.min(cap, 1 + reserve)) end
  local wait_us = 0
  if level < need then wait_us = math.ceil((need - level) * 1000000 / rate) end
  if byte_level and byte_level < 1 then
    wait_us = math.max(wait_us, math.ceil((1 - byte_level) * 1000000 / byte_rate))
  end
  if cap < 1 or wait_us > AHEAD_US then
    return {'wait', cap < 1 and AHEAD_US or wait_us - AHEAD_US}
  end
  level, changed = level - 1, true
  if byte_level then byte_level = byte_level - size end
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
  bump('permits')
  return {'go', wait_us, now, m.attempts}
end

local replies = {}
for i = 3, #ARGV, 3 do
  replies[#replies + 1] = ask(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]))
end
if changed then
  redis.call('HSET', K('gate'), 'level', level, 'at', at, 'run', run)
  if byte_level then redis.call('HSET', K('gate'), 'byte_level', byte_level, 'byte_at', at) end
end
write_tally()
return replies
