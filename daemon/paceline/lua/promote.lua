#!lua flags=allow-oom
--@lib
-- promote: scheduled and due -> ready, at its old place. While an outage lasts, those that have met
-- it wait on as long as there are others: no message is spent on it twice. And what an operator has begun
-- with a campaign is carried on, should he be gone (walk.lua). First, what apps asked to be cancelled is.
--
-- KEYS  {destination}
-- ARGV  now_us or '', at most how many
-- Returns {promoted, us until the next is due (-1: none is scheduled)}
T = KEYS[1]
local AGAIN_US = 2000000
local now, count = clock(ARGV[1]), 0
--@walk
--@wishes
local more_wishes = redis.call('EXISTS', K('cx')) == 1 and carry_out_wishes(math.min(200, tonumber(ARGV[2])))
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
local function first_in(name) return tonumber(redis.call('ZRANGE', K(name), 0, 0, 'WITHSCORES')[2]) end
-- Those of paused campaigns are never due.
local nearest = tonumber(redis.call('ZRANGEBYSCORE', K('s'), '-inf', '(+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2])
if redis.call('EXISTS', K('cw')) == 1 then
  local _, left = walk_campaigns(now, math.min(200, tonumber(ARGV[2])))
  if left > 0 then nearest = now end
end
if more_wishes then nearest = now end

-- Endpoints whose wait is over may be taken of again. And a few lanes are looked at each time, all of
-- them in turn: of an endpoint that is disabled, or registered no more, nothing is taken, so that it is
-- here that its messages become too old; and whatever was lost to sight (the configuration changed, a
-- key was deleted by hand) comes back.
local PATROL, PATROL_US, OLD = 20, 50000, 20
local function expire_old(place)
  local max_age_us = tonumber(redis.call('HGET', K('cfg'), 'max_age_us'))
  for _, id in ipairs(redis.call('ZRANGE', place, 0, OLD - 1)) do
    local m = read(id)
    if not m then redis.call('ZREM', place, id)
    elseif not is_over(m, now, max_age_us) then return
    else expire_message(m, now, max_age_us) end
  end
end

local function look_after(prio, lane)
  local name, place = lanes.name_of(lane), K('r:' .. prio .. ':' .. lane)
  if redis.call('EXISTS', place) == 0 then
    redis.call('ZREM', K('t:' .. prio), lane)
  elseif not lanes.registered(name) or lanes.trouble_of(name) then
    expire_old(place)
  else
    lanes.offer(prio, lane)
  end
end

local function patrol()
  local last = redis.call('HGET', K('gate'), 'patrol') or '0 0 0'
  local at, prio, from = string.match(last, '^(%d+) (%d) (%d+)$')
  if now - tonumber(at) < PATROL_US and now >= tonumber(at) then return end
  local some = redis.call('ZRANGE', K('t:' .. prio), from, from + PATROL - 1)
  for _, lane in ipairs(some) do look_after(prio, lane) end
  if #some < PATROL then prio, from = (prio + 1) % 3, 0 else from = from + PATROL end
  redis.call('HSET', K('gate'), 'patrol', string.format('%.0f %d %d', now, prio, from))
end

lanes_as(redis.call('HGET', K('cfg'), 'endpoints'))
if lanes then
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', K('eb'), '-inf', now, 'LIMIT', 0, ARGV[2])) do
    redis.call('ZREM', K('eb'), member)
    lanes.left[string.match(member, '^(.-)/?$')] = true
  end
  patrol()
  local bar = first_in('eb')
  nearest = bar and nearest and math.min(bar, nearest) or bar or nearest
end
write_tally()
if not nearest then return {count, -1} end
return {count, math.max(0, math.ceil(nearest - now))}
