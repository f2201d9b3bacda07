#!lua flags=allow-oom
--@lib
-- lean: how much of a destination's flow goes to the one it falls back to. What it should be is
-- decided in fallback.py; several daemons may decide at once, so the change is made here, only from
-- the share that was seen, and not before its time: two never change it twice.
--
-- KEYS  {destination}
-- ARGV  now_us or '', name of the one it falls back to, share seen (0 to 100), share wanted, us that
--       must have passed since it was changed last, loud (0|1: there is trouble now)
-- Returns {share in force, 1 if it was changed here}
T = KEYS[1]
local now, to = clock(ARGV[1]), ARGV[2]
local seen, wanted, apart, loud = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local g = redis.call('HMGET', K('gate'), 'fb_share', 'fb_to', 'fb_at')
-- A share that was meant for another destination is none of this one's.
local share = g[2] == to and tonumber(g[1] or 0) or 0
-- After a clock that stepped back it would stand still for the length of the step.
local at = math.min(tonumber(g[3] or 0), now)
if loud == '1' then redis.call('HSET', K('gate'), 'fb_loud_at', now) end
if wanted == share or seen ~= share or now - at < apart then
  if at == now then redis.call('HSET', K('gate'), 'fb_at', at) end
  return {share, 0}
end
redis.call('HSET', K('gate'), 'fb_share', wanted, 'fb_to', to, 'fb_at', now)
return {wanted, 1}
