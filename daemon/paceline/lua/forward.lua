#!lua flags=allow-oom
--@lib
-- forward: how far a destination's events were handed on to the app's own URL (event_forwarder.py).
-- Which events go together is planned here before any message of them is enqueued: whoever carries a
-- plan out, and however often, makes the same messages under the same ids. Events are named by their
-- numbers (seq), which have no gap; the cursor, `events_forwarded` of T:n, is the last that is done with.
--
-- KEYS  {destination}
-- ARGV  now_us or '', op, then
--   look
--   plan  cursor seen, by whom, where its batches end ('120 220'), how many up to the first end
--         had been trimmed away
--   done  cursor seen, end of the last batch that is enqueued, entry in which that event is or '',
--         how many in these batches had been trimmed away
--   Where the cursor is another, or there is a plan already, nothing is changed.
-- Returns how it stands now: {cursor, events told in all, now_us, entry to read from or '',
--         ends of the plan or '', by whom, since when, trimmed away up to its first end}
T = KEYS[1]
local now, op = clock(ARGV[1]), ARGV[2]
local n = redis.call('HMGET', K('n'), 'events_forwarded', 'events', 'events_trimmed')
local cursor = tonumber(n[1])
if not cursor then
  -- It begins with the first that is there: what went before was not to be forwarded.
  cursor = tonumber(n[3] or 0)
  redis.call('HSET', K('n'), 'events_forwarded', string.format('%.0f', cursor))
end
local f = redis.call('HMGET', K('evf'), 'entry', 'ends', 'by', 'at', 'gap')

if op == 'plan' and not f[2] and tonumber(ARGV[3]) == cursor then
  f = {f[1], ARGV[5], ARGV[4], string.format('%.0f', now), ARGV[6]}
  redis.call('HSET', K('evf'), 'ends', f[2], 'by', f[3], 'at', f[4], 'gap', f[5])
elseif op == 'done' and f[2] and tonumber(ARGV[3]) == cursor then
  cursor = tonumber(ARGV[4])
  redis.call('HSET', K('n'), 'events_forwarded', string.format('%.0f', cursor))
  if ARGV[5] ~= '' then
    f[1] = ARGV[5]
    redis.call('HSET', K('evf'), 'entry', f[1])
  end
  local left = {}
  for stop in string.gmatch(f[2], '%d+') do
    if tonumber(stop) > cursor then left[#left + 1] = stop end
  end
  if left[1] then
    f[2], f[5] = table.concat(left, ' '), '0'
    redis.call('HSET', K('evf'), 'ends', f[2], 'gap', f[5])
  else
    f = {f[1]}
    redis.call('HDEL', K('evf'), 'ends', 'by', 'at', 'gap')
  end
  bump('events_unforwarded', tonumber(ARGV[6]))
  write_tally()
end
return {string.format('%.0f', cursor), n[2] or '0', string.format('%.0f', now), f[1] or '', f[2] or '',
  f[3] or '', f[4] or '0', f[5] or '0'}
