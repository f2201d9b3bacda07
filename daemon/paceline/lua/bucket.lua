-- The bucket at the wire, for every request that starts there: begin draws for messages, errand for
-- requests that carry none. scripts.py puts this text into both, in the place of the line
-- "--@bucket"; `now` and `run` are theirs.
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
local AHEAD_US = 250000
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

-- What closes the way, as a reply. Only where `what` says that something does.
local function closed_now() return {'closed', what, till == -1 and -1 or till - now, why} end

-- One permit, after a look, for a request of `size` bytes; only one that is `high` may have the last
-- ones. Returns for how long to wait with it; or nil where there is none within 250 ms, and a reply.
local function draw(high, size)
  changed = changed or reset
  local need = 1
  -- Where lapsed slots leave a bucket smaller than the reserve, there is none: asked for more than
  -- the bucket ever holds, a slow destination would wait for ever.
  if not high then need = math.max(1, math.min(cap, 1 + reserve)) end
  local wait_us = 0
  if level < need then wait_us = math.ceil((need - level) * 1000000 / rate) end
  if byte_level and byte_level < 1 then
    wait_us = math.max(wait_us, math.ceil((1 - byte_level) * 1000000 / byte_rate))
  end
  if cap < 1 or wait_us > AHEAD_US then
    return nil, {'wait', cap < 1 and AHEAD_US or wait_us - AHEAD_US}
  end
  level, changed = level - 1, true
  if byte_level then byte_level = byte_level - size end
  bump('permits')
  return wait_us
end

-- At the end of the script: what is left in it.
local function write_bucket()
  if not changed then return end
  redis.call('HSET', K('gate'), 'level', level, 'at', at, 'run', run)
  if byte_level then redis.call('HSET', K('gate'), 'byte_level', byte_level, 'byte_at', at) end
end
