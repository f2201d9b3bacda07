#!lua flags=allow-oom
--@lib
-- loss: Redis has less than an observer saw in it. Totals only grow; where one is lower than it was,
-- Redis came back without what it had said it has (a crash under `everysec`, a fail-over).
--
-- KEYS  {destination}
-- ARGV  now_us or '', run_id, accepted and sent as the observer saw them last
-- Several observers see the same loss: the largest of one run of Redis counts.
-- Returns {accepted messages forgotten, sent ones forgotten}, each at least so many
T = KEYS[1]
clock(ARGV[1])
local now = redis.call('HMGET', K('n'), 'accepted', 'sent')
local accepted = math.max(0, tonumber(ARGV[3]) - tonumber(now[1] or 0))
local sent = math.max(0, tonumber(ARGV[4]) - tonumber(now[2] or 0))
if accepted + sent > 0 then
  local noted = redis.call('HMGET', K('reap'), 'lost_run', 'lost')
  local before = noted[1] == ARGV[2] and tonumber(noted[2]) or nil
  if not before then bump('losses') end
  bump('lost_accepted', math.max(0, accepted - (before or 0)))
  redis.call('HSET', K('reap'), 'lost_run', ARGV[2], 'lost',
    string.format('%.0f', math.max(accepted, before or 0)))
  write_tally()
end
return {accepted, sent}
