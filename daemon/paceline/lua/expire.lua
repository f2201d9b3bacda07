#!lua flags=allow-oom
--@lib
-- expire: ready or scheduled, and its explicit expiry has come -> expired. A leased one, or
-- one in a merged request, meets its expiry at begin; a dead or parked one stays until dropped.
--
-- KEYS  {destination}
-- ARGV  now_us or '', at most how many
-- Returns how many expired
T = KEYS[1]
local now, count = clock(ARGV[1]), 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', K('e'), '-inf', now, 'LIMIT', 0, ARGV[2])) do
  local m = read(id)
  if m then locate(m) end
  if m and (m.state == 'R' or m.state == 'W') then
    expire_message(m, now)
    count = count + 1
  elseif m and (m.state == 'L' or m.state == 'B' or m.state == 'Q') then
    -- Looked at again in a second: the index must not be walked for them at every call.
    redis.call('ZADD', K('e'), now + 1000000, id)
  else
    redis.call('ZREM', K('e'), id)
  end
end
write_tally()
return count
