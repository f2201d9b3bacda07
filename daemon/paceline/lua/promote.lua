#!lua flags=allow-oom
--@lib
-- promote: scheduled and due -> ready, at its old place.
--
-- KEYS  {destination}
-- ARGV  now_us or '', at most how many
-- Returns {promoted, us until the next is due (-1: none is scheduled)}
T = KEYS[1]
local now, count = clock(ARGV[1]), 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', K('s'), '-inf', now, 'LIMIT', 0, ARGV[2])) do
  redis.call('ZREM', K('s'), id)
  local m = read(id)
  if m and m.state == 'W' then
    to_ready(m)
    write(m)
    count = count + 1
  end
end
local nearest = redis.call('ZRANGE', K('s'), 0, 0, 'WITHSCORES')
if not nearest[2] then return {count, -1} end
return {count, math.max(0, math.ceil(tonumber(nearest[2]) - now))}
