#!lua flags=allow-oom
--@lib
-- sweep: the window of a merged request is over: the records of its members go. And so do events that
-- are too old, however few come after them.
--
-- KEYS  {destination}
-- ARGV  now_us or '', at most how many requests
-- Returns how many records went
T = KEYS[1]
local now, count = clock(ARGV[1]), 0
for _, rid in ipairs(redis.call('ZRANGEBYSCORE', K('gone'), '-inf', now, 'LIMIT', 0, ARGV[2])) do
  local names = {}
  each_member(members_of('+' .. rid), function(id) names[#names + 1] = K('m:' .. id) end)
  for from = 1, #names, 1000 do
    count = count + redis.call('UNLINK', unpack(names, from, math.min(from + 999, #names)))
  end
  redis.call('UNLINK', members_key('+' .. rid))
  redis.call('ZREM', K('gone'), rid)
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', K('cs'), '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('UNLINK', K('cn:' .. name))
  redis.call('ZREM', K('cs'), name)
end
if redis.call('EXISTS', K('ev')) == 1 then
  events_as(redis.call('HGET', K('cfg'), 'events'))
  if wanted then trim_events(tonumber(redis.call('HGET', K('n'), 'events') or 0), true) end
end
return count
