#!lua flags=allow-oom
--@lib
-- attest: parked -> sent, by an operator who asked the provider.
--
-- KEYS  {destination}
-- ARGV  now_us or '', id, ...
-- Returns one word an id: sent, not-parked, unknown
T = KEYS[1]
local now, words = clock(ARGV[1]), {}
for i = 2, #ARGV do
  local m, word = read(ARGV[i]), nil
  if not m then word = 'unknown'
  elseif m.state ~= 'K' then word = 'not-parked'
  else
    leave(m)
    about = {id = m.id, details = {'reason', 'attested'}}
    finish(m, 'S', now, m.nonce)
    bump('sent')
    bump('attested')
    word = 'sent'
  end
  words[#words + 1] = word
end
write_tally()
return words
