#!lua flags=no-writes,allow-oom
--@lib
-- inspect: what is known of each id, and whether its container agrees with its header.
--
-- KEYS  {destination}
-- ARGV  id, ...
-- Returns for each id: '' (unknown), or {whole record} for an ended one, or {header with tenant
--         and campaign, payload bytes, in its container (1|0), worker that holds it or ''}
T = KEYS[1]
local out = {}
for i = 1, #ARGV do
  local id = ARGV[i]
  local m = read(id)
  if not m then
    local record = redis.call('GET', K('m:' .. id))
    out[i] = record and {record} or ''
  else
    local there, worker = false, ''
    if m.state == 'R' then there = redis.call('ZSCORE', K('r:' .. m.prio .. ':' .. m.tenant), id)
    elseif m.state == 'W' then there = redis.call('ZSCORE', K('s'), id)
    elseif m.state == 'D' then there = redis.call('ZSCORE', K('dead'), id)
    elseif m.state == 'K' then there = redis.call('ZSCORE', K('parked'), id)
    else
      there = redis.call('SISMEMBER', K('b:' .. m.nonce), id) == 1
        and redis.call('ZSCORE', K('batches'), m.nonce)
      worker = redis.call('HGET', K('bm:' .. m.nonce), 'worker') or ''
    end
    out[i] = {redis.call('GETRANGE', K('m:' .. id), 0, m.body_from - 1),
      redis.call('STRLEN', K('m:' .. id)) - m.body_from, there and 1 or 0, worker}
  end
end
return out
