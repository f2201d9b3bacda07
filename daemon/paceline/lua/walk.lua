-- walk: the messages of a campaign that was paused, or resumed, go where they belong, some hundred a call:
-- from ready and scheduled into the wait, or out of it. campaign.lua does it for who asked, promote.lua
-- where he is gone. scripts.py puts this text into both, in the place of the line "--@walk".
--
-- How far it has come is kept in T:cw, as SSCAN's cursor over the campaign's index. Who was leased meanwhile
-- is met at begin or where it comes back (to_ready), so one round is enough.

local function to_wait(m)
  if m.state == 'R' then
    -- Not in its place: it is held, or in a merged request (locate).
    local place = K('r:' .. m.prio .. ':' .. m.tenant)
    if not redis.call('ZSCORE', place, m.id) then return false end
    from_ready(m)
  elseif m.state ~= 'W' or redis.call('ZSCORE', K('s'), m.id) == 'inf' then
    return false
  end
  to_far(m)
  write(m)
  return true
end

local walk_wakes = false
local function out_of_wait(m, now)
  if m.state ~= 'W' or redis.call('ZSCORE', K('s'), m.id) ~= 'inf' then return false end
  if m.due > now then
    redis.call('ZADD', K('s'), m.due, m.id)
    return true
  end
  redis.call('ZREM', K('s'), m.id)
  walk_wakes = to_ready(m) or walk_wakes
  write(m)
  return true
end

-- One step of about `most` messages, of one campaign. Returns how many it looked at and how many campaigns
-- are still under way.
local function walk_campaigns(now, most)
  local first = redis.call('HRANDFIELD', K('cw'))
  if not first then return 0, 0 end
  local into = redis.call('HEXISTS', K('cp'), first) == 1
  local step = redis.call('SSCAN', K('c:' .. first), redis.call('HGET', K('cw'), first), 'COUNT', most)
  for _, id in ipairs(step[2]) do
    local m = read(id)
    if m and m.cl > 0 and campaign_of(m) == first then
      if into then to_wait(m) else out_of_wait(m, now) end
    end
  end
  if step[1] == '0' then
    redis.call('HDEL', K('cw'), first)
  else
    redis.call('HSET', K('cw'), first, step[1])
  end
  if walk_wakes then
    redis.call('LPUSH', K('wake'), '1')
    redis.call('LTRIM', K('wake'), 0, 3)
  end
  return #step[2], redis.call('HLEN', K('cw'))
end
