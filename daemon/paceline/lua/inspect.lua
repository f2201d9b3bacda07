#!lua flags=no-writes,allow-oom
--@lib
-- inspect: what is known of each id, and whether its container agrees with its header.
--
-- KEYS  {destination}
-- ARGV  id, ...
-- Of one in a merged request the state is the request's, in small letters.
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
    local there, worker, head = false, '', redis.call('GETRANGE', K('m:' .. id), 0, 21)
    local said = m.state
    if locate(m).state ~= said then head = 'P' .. m.state .. string.sub(head, 3, 6) .. m.nonce end
    if m.state == 'Q' then
      -- As the request is, with the request's id for a nonce.
      local request = read('+' .. m.nonce)
      if request then
        locate(request)
        there = true
        worker = redis.call('HGET', K('bm:' .. request.nonce), 'worker') or ''
        head = 'P' .. string.lower(request.state) .. string.sub(head, 3)
      end
    elseif m.state == 'R' then there = redis.call('ZSCORE', K('r:' .. m.prio .. ':' .. m.tenant), id)
    elseif m.state == 'W' then there = redis.call('ZSCORE', K('s'), id)
    elseif m.state == 'D' then there = redis.call('ZSCORE', K('dead'), id)
    elseif m.state == 'K' then there = redis.call('ZSCORE', K('parked'), id)
    else
      there = redis.call('SISMEMBER', K('b:' .. m.nonce), id) == 1
        and redis.call('ZSCORE', K('batches'), m.nonce)
      worker = redis.call('HGET', K('bm:' .. m.nonce), 'worker') or ''
    end
    out[i] = {head .. redis.call('GETRANGE', K('m:' .. id), 22, m.body_from - 1),
      redis.call('STRLEN', K('m:' .. id)) - m.body_from, there and 1 or 0, worker}
  end
end
return out
