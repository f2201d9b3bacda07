#!lua flags=allow-oom
--@lib
-- purge: ready and scheduled -> dropped, all of a destination, by an operator's word; called again
-- until it answers 0.
--
-- KEYS  {destination}
-- ARGV  now_us or '', at most how many
-- Returns how many were dropped
T = KEYS[1]
local now, most, ids = clock(ARGV[1]), tonumber(ARGV[2]), {}
for prio = 0, 2 do
  for _, tenant in ipairs(redis.call('ZRANGE', K('t:' .. prio), 0, -1)) do
    if #ids >= most then break end
    local place = K('r:' .. prio .. ':' .. tenant)
    for _, id in ipairs(redis.call('ZRANGE', place, 0, most - #ids - 1)) do
      local m = read(id)
      if m and m.state == 'R' then ids[#ids + 1] = id
      else
        -- A place without its message, deleted by somebody: gone too, or it would stop the next.
        redis.call('ZREM', place, id)
        if redis.call('EXISTS', place) == 0 then redis.call('ZREM', K('t:' .. prio), tenant) end
      end
    end
  end
end
if #ids < most then
  for _, id in ipairs(redis.call('ZRANGE', K('s'), 0, most - #ids - 1)) do
    local m = read(id)
    if m and m.state == 'W' then ids[#ids + 1] = id else redis.call('ZREM', K('s'), id) end
  end
end
local count = 0
for _, id in ipairs(ids) do
  local m = read(id)
  leave(m)
  local ended = finish(m, 'T', now, m.nonce)
  bump('dropped', ended)
  count = count + ended
end
write_tally()
return count
