#!lua flags=allow-oom
--@lib
-- renew: the worker extends the leases of the batches it names, and only those.
--
-- KEYS  {destination}
-- ARGV  now_us or '', nonce, ...
-- Returns the nonces that are no longer leased (reaped, or settled to the end).
T = KEYS[1]
local now, gone = clock(ARGV[1]), {}
local till = now + tonumber(redis.call('HGET', K('cfg'), 'lease_us'))
for i = 2, #ARGV do
  if redis.call('ZSCORE', K('batches'), ARGV[i]) then
    redis.call('ZADD', K('batches'), till, ARGV[i])
  else
    gone[#gone + 1] = ARGV[i]
  end
end
return gone
