#!lua
--@lib
-- replay: dead or parked -> ready, as if new: tries at 0, a place at the end of its queue; its
-- attempts stay on record. Not allow-oom: it adds work.
--
-- KEYS  {destination}
-- ARGV  now_us or '', id, ...
-- Returns one word an id: ready, expired (over its age or expiry: ended now), not-dead, unknown
T = KEYS[1]
local now, words = clock(ARGV[1]), {}
for i = 2, #ARGV do
  local m, word = read(ARGV[i]), nil
  if not m then word = 'unknown'
  elseif m.state ~= 'D' and m.state ~= 'K' then word = 'not-dead'
  elseif m.expires > 0 and m.expires <= now then
    expire_message(m, now)
    word = 'expired'
  else
    leave(m)
    m.tries, m.flag, m.nonce = 0, '-', NO_NONCE
    local its_lanes = lanes_of(m.tenant)
    -- To the end, as if new; what is to be in order, to its place.
    if not (its_lanes and its_lanes.order_of(m.tenant)) then
      m.seq = redis.call('HINCRBY', K('n'), 'seq', 1)
    end
    -- max_age counts from the replay: an operator asked for it knowing its age.
    redis.call('SETRANGE', K('m:' .. m.id), 24, struct.pack('>dd', m.seq, now))
    if to_ready(m) then
      redis.call('LPUSH', K('wake'), '1')
      redis.call('LTRIM', K('wake'), 0, 3)
    end
    write(m)
    bump('replayed')
    tell('replayed', m.id)
    word = 'ready'
  end
  words[#words + 1] = word
end
write_tally()
return words
