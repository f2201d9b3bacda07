#!lua flags=allow-oom
--@lib
-- press: what a daemon finds, every half second, of the Redis that all destinations share, and what
-- intake goes by (enqueue reads both fields with the gate's others; it can ask for neither itself: INFO
-- is dear, and a script keeps to its own destination's keys).
--
-- KEYS  {destination}
-- ARGV  now_us or '', word, until when it holds (us from now), seconds until one may try again, why,
--       limits in all or ''
--   word   open | shut | keep: between the two marks it stays as it is
--   limits "<most messages> <most bytes> <messages of the others> <bytes of the others>", a most of 0
--          is none
-- Returns 1 where intake is shut now, else 0.
T = KEYS[1]
local now, word, all = clock(ARGV[1]), ARGV[2], ARGV[6]
local gate = redis.call('HMGET', K('gate'), 'full', 'all')
local until_us = gate[1] and tonumber(string.match(gate[1], '^%d+'))
local shut = word == 'shut' or (word == 'keep' and until_us and until_us > now)
if shut then
  redis.call('HSET', K('gate'), 'full',
    string.format('%.0f', now + tonumber(ARGV[3])) .. ' ' .. ARGV[4] .. ' ' .. ARGV[5])
elseif gate[1] then
  redis.call('HDEL', K('gate'), 'full')
end
if all == '' then
  if gate[2] then redis.call('HDEL', K('gate'), 'all') end
elseif gate[2] ~= all then
  redis.call('HSET', K('gate'), 'all', all)
end
return shut and 1 or 0
