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
--@cancelling

for i = 2, #ARGV do words[#words + 1] = cancel_one(ARGV[i]) end
write_tally()
return words
