#!lua flags=allow-oom
--@lib
-- drop: dead or parked -> dropped, by an operator's word.
--
-- KEYS  {destination}
-- ARGV  now_us or '', id, ...
-- Returns one word an id: dropped, not-dead, unknown
T = KEYS[1]
local now, words = clock(ARGV[1]), {}
for i = 2, #ARGV do
  local m, word = read(ARGV[i]), nil
  if not m then word = 'unknown'
  elseif m.state ~= 'D' and m.state ~= 'K' then word = 'not-dead'
  else
    leave(m)
    finish(m, 'T', now, m.nonce)
    bump('dropped')
    word = 'dropped'
  end
  words[#words + 1] = word
end
write_tally()
return words
