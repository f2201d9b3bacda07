#!lua flags=allow-oom
--@lib
-- cancel_campaign: as cancel, of those of these ids that are of the campaign. What else stands in its index
-- (scripts of an older version ended it) leaves it.
--
-- KEYS  {destination}
-- ARGV  now_us or '', campaign, id, ...
-- Returns one word an id, as cancel; or other
T = KEYS[1]
local now, name, words = clock(ARGV[1]), ARGV[2], {}
--@cancelling

for i = 3, #ARGV do
  local id, word = ARGV[i], 'other'
  local m = read(id)
  if m and m.cl > 0 and campaign_of(m) == name then
    word = cancel_one(id)
  else
    local left = in_campaign(name).left
    left[#left + 1] = id
  end
  words[#words + 1] = word
end
write_tally()
return words
