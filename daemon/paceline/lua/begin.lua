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
-- lost. A clock that steps back adds nothing; one that steps forward adds at most K.
--
-- KEYS  {destination}
-- ARGV  now_us or '', run_id of the Redis that the caller's connection reached, then id, nonce of
--       each message
-- Returns for each message one of
--         {'go', wait_us, now_us, attempt}: write the first byte after wait_us
--         {'wait', us}: no permit within 250 ms; ask again then
--         {'closed', what, us or -1, why}: paused or held: give the message back or wait
--         {'gone', what}: not this batch's message (any more): cancelled, expired, fenced
local AHEAD_US = 250000
T = KEYS[1]
local now, run = clock(ARGV[1]), ARGV[2]
local rate, reserve, max_age_us, what, till, why, level, at, cap, reset, changed

local function look()
  local cfg = redis.call('HMGET', K('cfg'), 'rate', 'reserve', 'max_age_us')
  rate, reserve, max_age_us = tonumber(cfg[1]), tonumber(cfg[2]), tonumber(cfg[3])
  local g = redis.call('HMGET', K('gate'), 'pause_until', 'pause_why', 'hold_until', 'hold_why',
    'hold_kind', 'level', 'at', 'run', 'k')
  what, till, why = closed(now, g)
  level, at, cap = tonumber(g[6]), tonumber(g[7]), tonumber(g[9] or 0)
  if not level or g[8] ~= run then
    level, at, reset = math.min(level or 0, 0), now, true
  elseif now < at then
    level, at, reset = math.min(cap, level), now, true
  else
    level, at = math.min(cap, level + (now - at) * rate / 1000000), now
  end
end

local function ask(id, nonce)
  local m = read(id)
  if not m or m.nonce ~= nonce or (m.state ~= 'L' and m.state ~= 'B') then
    return {'gone', 'fenced'}
  end
  if not rate then look() end
  if m.flag == 'c' then
    -- Cancelled after a begin whose request was never written, for the caller asks again.
    leave(m)
    finish(m, 'C', now, m.nonce)
    bump('cancelled')
    return {'gone', 'cancelled'}
  end
  if is_over(m, now, max_age_us) then
    expire_message(m, now)
    return {'gone', 'expired'}
  end
  if what then return {'closed', what, till == -1 and -1 or till - now, why} end
  changed = changed or reset
  local need = 1
  -- Where lapsed slots leave a bucket smaller than the reserve, there is none: asked for more than
  -- the bucket ever holds, a slow destination would wait for ever.
  if m.prio ~= '0' then need = math.max(1, math.min(cap, 1 + reserve)) end
  local wait_us = 0
  if level < need then wait_us = math.ceil((need - level) * 1000000 / rate) end
  if cap < 1 or wait_us > AHEAD_US then
    return {'wait', cap < 1 and AHEAD_US or wait_us - AHEAD_US}
  end
  level, changed = level - 1, true
  if m.state == 'L' then
    m.state, m.attempts = 'B', math.min(m.attempts + 1, 65535)
    write(m)
  end
  bump('permits')
  return {'go', wait_us, now, m.attempts}
end

local replies = {}
for i = 3, #ARGV, 2 do replies[#replies + 1] = ask(ARGV[i], ARGV[i + 1]) end
if changed then
  redis.call('HSET', K('gate'), 'level', level, 'at', at, 'run', run)
end
write_tally()
return replies
