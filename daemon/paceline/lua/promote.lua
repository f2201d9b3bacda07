#!lua flags=allow-oom
--@lib
-- promote: scheduled and due -> ready, at its old place. While an outage lasts, those that have met
-- it wait on as long as there are others: no message is spent on it twice. And what an operator has begun
-- with a campaign is carried on, should he be gone (walk.lua).
--
-- KEYS  {destination}
-- ARGV  now_us or '', at most how many
-- Returns {promoted, us until the next is due (-1: none is scheduled)}
T = KEYS[1]
local AGAIN_US = 2000000
local now, count = clock(ARGV[1]), 0
--@walk
local gate = redis.call('HMGET', K('gate'), 'breaker', 'suspect')
local outage = gate[1] or tonumber(gate[2] or 0) > now

local function others_wait()
  return redis.call('EXISTS', K('t:0'), K('t:1'), K('t:2')) > 0
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', K('s'), '-inf', now, 'LIMIT', 0, ARGV[2])) do
  redis.call('ZREM', K('s'), id)
  local m = read(id)
  if m and m.state == 'W' and m.flag == 'o' and outage and others_wait() then
    to_scheduled(m, now + AGAIN_US)
    write(m)
  elseif m and m.state == 'W' then
    to_ready(m)
    write(m)
    count = count + 1
  end
end
if redis.call('EXISTS', K('cw')) == 1 then
  local _, left = walk_campaigns(now, math.min(200, tonumber(ARGV[2])))
  if left > 0 then return {count, 0} end
end
-- Those of paused campaigns are never due.
local nearest = redis.call('ZRANGEBYSCORE', K('s'), '-inf', '(+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if not nearest[2] then return {count, -1} end
return {count, math.max(0, math.ceil(tonumber(nearest[2]) - now))}
