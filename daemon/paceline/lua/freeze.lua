#!lua flags=allow-oom
--@lib
-- freeze: messages that this worker holds -> one merged request, held by it too, under a lease of its
-- own. From now on they are begun and settled as one (merged.lua).
-- Repeated with the same id it answers the same.
--
-- Whether they are held is asked of their batches' sets, all at once; what else is to be known of them
-- the worker has read. One that was cancelled or has expired meanwhile has left its set; so a batch
-- that goes in whole and has lost none is not even walked.
--
-- KEYS  {destination}
-- ARGV  now_us or '', worker id, request id (16 characters, also the first nonce of its lease), body,
--       priority, tenant, tries, place d, earliest expiry d (0: none), their number, T:qm:<id>'s head
--       (merged.lua), 1 where headers say who holds them (they were in a request before), campaign of all
--       of them or ''; then, as
--       often as needed, a nonce, the size of its batch when it was taken if all of it goes in here
--       (else 0), and the members held under it, as they are kept in T:qm:<id>; in the order of the
--       body
-- Returns {'frozen'}, or {'changed', id, ...}: these are not this worker's any more (cancelled,
--         expired, fenced): nothing was written; build the request without them.
T = KEYS[1]
local now, worker, rid, body = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local prio, tenant, count, campaign = ARGV[5], ARGV[6], ARGV[10], ARGV[13]
local id, set, call = '+' .. rid, K('qs:' .. rid), redis.call
if call('HEXISTS', K('q'), id) == 1 then return {'frozen'} end

local FIRST = 14
local function ids_of(packed)
  local ids, at = {}, 1
  while at <= #packed do
    local len = string.byte(packed, at)
    ids[#ids + 1] = string.sub(packed, at + 1, at + len)
    at = at + len + MEMBER_LEN
  end
  return ids
end

local parts, changed, all = {}, {}, {ARGV[11]}
for i = FIRST, #ARGV, 3 do
  local part = {batch = K('b:' .. ARGV[i]), nonce = ARGV[i]}
  local size = tonumber(ARGV[i + 1])
  if size == 0 or call('SCARD', part.batch) ~= size then
    part.ids = ids_of(ARGV[i + 2])
    for from = 1, #part.ids, 1000 do
      local upto = math.min(from + 999, #part.ids)
      local there = call('SMISMEMBER', part.batch, unpack(part.ids, from, upto))
      for n, is in ipairs(there) do
        if is == 0 then changed[#changed + 1] = part.ids[from + n - 1] end
      end
    end
  end
  parts[#parts + 1] = part
  all[#all + 1] = ARGV[i + 2]
end
if #changed > 0 then return {'changed', unpack(changed)} end

for _, part in ipairs(parts) do
  if part.ids then
    in_pieces('SREM', part.batch, part.ids)
    in_pieces('SADD', set, part.ids)
  elseif #parts == 1 then
    call('RENAME', part.batch, set)
  else
    call('SUNIONSTORE', set, set, part.batch)
    call('DEL', part.batch)
  end
  touched[part.nonce] = true
end
if ARGV[12] == '1' then
  for i = FIRST, #ARGV, 3 do
    for _, its_id in ipairs(ids_of(ARGV[i + 2])) do call('SETRANGE', K('m:' .. its_id), 1, 'R') end
  end
end
call('SET', K('qm:' .. rid), table.concat(all))
call('SET', K('m:' .. id), 'PL' .. struct.pack('>HHc16c1c1', 0, tonumber(ARGV[7]), rid, prio, '-')
  .. ARGV[8] .. string.sub(ARGV[11], 1, 8) .. ARGV[9] .. string.rep('\0', 8)
  .. struct.pack('>BBH', #tenant, #count, #campaign) .. tenant .. count .. campaign .. body)
call('HSET', K('q'), id, count)
call('SADD', K('b:' .. rid), id)
call('HSET', K('bm:' .. rid), 'worker', worker, 'lane', prio == '0' and 'high' or 'any', 'at', now)
bump('merged_requests')
bump('merged_messages', tonumber(count))
call('ZADD', K('batches'), now + tonumber(call('HGET', K('cfg'), 'lease_us')), rid)
write_tally()
return {'frozen'}
