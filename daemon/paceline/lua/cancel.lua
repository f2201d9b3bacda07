#!lua flags=allow-oom
--@lib
-- cancel: ready, scheduled or leased -> cancelled. One that has begun may be on the wire: it is
-- flagged, and cancelled should that attempt fail. (One in a merged request that has begun: should the
-- request be taken apart, for it is sent again whole.)
--
-- KEYS  {destination}
-- ARGV  now_us or '', id, ...
-- Returns one word an id: cancelled, begun (flagged), ended (nothing to cancel), dead or parked
--         (drop those), unknown
T = KEYS[1]
local now, words = clock(ARGV[1]), {}

for i = 2, #ARGV do
  local id, word = ARGV[i], nil
  local m = read(id)
  if m and locate(m).state == 'Q' then m = out_of_request(m, now) or m end
  if not m then
    word = redis.call('EXISTS', K('m:' .. id)) == 1 and 'ended' or 'unknown'
  elseif m.state == 'D' then word = 'dead'
  elseif m.state == 'K' then word = 'parked'
  elseif m.state == 'Q' or m.state == 'B' then
    word = 'begun'
    redis.call('SETRANGE', K('m:' .. id), 23, 'c')
  else
    leave(m)
    finish(m, 'C', now, m.nonce)
    bump('cancelled')
    word = 'cancelled'
  end
  words[#words + 1] = word
end
write_tally()
return words
