#!lua flags=no-writes,allow-oom
--@lib
-- unanswered: an invitation that stands unanswered, for a worker that no job brings one. RQ loses jobs,
-- and a full Redis lets it put none into its queues; what may be taken is counted in the outbox alone.
--
-- KEYS  {destination}
-- ARGV  now_us or '', released at least so long ago (us), length of an invitation's lease (us)
-- Returns {} or {invitation id, lane, n}; the oldest, those to high messages first.
T = KEYS[1]
local now, age_us, lease_us = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local upto = string.format('%.0f', now + lease_us - age_us)
local found = {}
for _, id in ipairs(redis.call('ZRANGE', K('inv'), '(' .. string.format('%.0f', now), upto, 'BYSCORE',
  'LIMIT', 0, 20)) do
  local lane, n = string.match(redis.call('HGET', K('invn'), id) or '', '^(%a+):(%d+)$')
  if lane and (not found[1] or (lane == 'high' and found[2] ~= 'high')) then
    found = {id, lane, tonumber(n)}
  end
end
return found
