#!lua flags=allow-oom
--@lib
-- rate: an operator sets the rate, live: it overrides the configured one on all hosts from the next
-- permit on, survives restarts, and is on record.
--
-- KEYS  {destination}
-- ARGV  now_us or '', requests/s as text ('' : back to the configured one), why, who
-- Returns {configured, in force, pace that results allow or ''} (as text)
T = KEYS[1]
local now, rate, why, who = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local configured = redis.call('HGET', K('cfg'), 'rate')
local g = redis.call('HMGET', K('gate'), 'rate_set', 'pace', 'level', 'at', 'fill_from', 'k')

-- What came in until now came in at the rate that held until now.
local level, at = tonumber(g[3]), tonumber(g[4])
if level and at then
  local from = math.max(at, tonumber(g[5] or 0))
  if now > from then
    level = math.min(tonumber(g[6] or 0), level + (now - from) * rate_of(configured, g[1], g[2]) / 1000000)
    redis.call('HSET', K('gate'), 'level', level, 'at', now)
  end
end
if rate == '' then
  redis.call('HDEL', K('gate'), 'rate_set', 'rate_why', 'rate_who', 'rate_at')
else
  redis.call('HSET', K('gate'), 'rate_set', rate, 'rate_why', why, 'rate_who', who, 'rate_at', now)
end
-- A pace that was found under another ceiling: growth goes on from it, above the new one it ends.
if g[2] and tonumber(g[2]) >= tonumber(rate ~= '' and rate or configured) then
  redis.call('HDEL', K('gate'), 'pace', 'pace_top', 'pace_from', 'pace_age', 'pace_seen',
    'pace_slow', 'pace_why')
end
log_hand({at_us = string.format('%.0f', now), who = who, what = 'rate', value = rate, why = why})
return {configured, rate ~= '' and rate or configured, redis.call('HGET', K('gate'), 'pace') or ''}
