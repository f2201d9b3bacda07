#!lua flags=allow-oom
--@lib
-- hold: an operator's hand on the gate.
--
-- KEYS  {destination}
-- ARGV  now_us or '', op, until us (-1 for ever), why, who
--   op  pause   nothing begins until resumed, or until the time given
--       hold    the same, told apart in status: set by hand for a provider's trouble
--       drain   refuses intake; what waits is finished
--       resume  lifts all of them, and holds set by outcomes
-- Returns the words that were lifted or set
T = KEYS[1]
local KNOWN = {resume = true, pause = true, hold = true, drain = true}
local now, op, till, why, who = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if KNOWN[op] then
  log_hand({at_us = string.format('%.0f', now), who = who, what = op, why = why,
    till_us = op ~= 'resume' and op ~= 'drain' and till or nil})
end
if op == 'resume' then
  local words = {}
  local what = closed(now)
  if what then words[1] = what end
  if redis.call('HEXISTS', K('gate'), 'breaker') == 1 and what ~= 'breaker' then
    words[#words + 1] = 'breaker'
  end
  if redis.call('HGET', K('gate'), 'draining') then words[#words + 1] = 'draining' end
  redis.call('HDEL', K('gate'), 'pause_until', 'pause_why', 'pause_who', 'hold_until', 'hold_why',
    'hold_kind', 'hold_since', 'hold_who', 'draining', 'throttles', 'throttle_at', 'breaker',
    'breaker_why', 'probe', 'suspect', 'res')
  redis.call('LPUSH', K('wake'), '1')
  redis.call('LTRIM', K('wake'), 0, 3)
  return words
elseif op == 'pause' then
  redis.call('HSET', K('gate'), 'pause_until', till, 'pause_why', why, 'pause_who', who)
  return {'paused'}
elseif op == 'hold' then
  redis.call('HSET', K('gate'), 'hold_until', till, 'hold_why', why, 'hold_kind', 'held',
    'hold_since', now, 'hold_who', who)
  return {'held'}
elseif op == 'drain' then
  redis.call('HSET', K('gate'), 'draining', why ~= '' and why or 'draining')
  return {'draining'}
end
return redis.error_reply('PLINVALID op: must be pause, hold, drain or resume')
