#!lua flags=allow-oom
--@lib
-- freeze: messages that this worker holds -> one merged request, held by it too, under a lease of its
-- own. From now on they are begun and settled as one (merged.lua).
-- Repeated with the same id it answers the same.
--
-- Whether they are held is asked of their batches' sets, all at once; what else is to be known of them
-- the worker has read. One that was cancelled or has expired meanwhile has left its set.
--
-- KEYS  {destination}
-- ARGV  now_us or '', worker id, request id (16 characters, also the first nonce of its lease), body,
--       priority, tenant, tries, place d, earliest expiry d (0: none), their number, T:qm:<id>'s head
--       (merged.lua); then, as often as needed, a nonce and the members held under it, as they are kept
--       in T:qm:<id>; in the order of the body
-- Returns {'frozen'}, or {'changed', id, ...}: these are not this worker's any more (cancelled,
--         expired, fenced): nothing was written; build the request without them.
T = KEYS[1]
local now, worker, rid, body = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local prio, tenant, count = ARGV[5], ARGV[6], ARGV[10]
local id = '+' .. rid
if redis.call('HEXISTS', K('q'), id) == 1 then return {'frozen'} end

local FIRST = 12
local parts, changed = {}, {}
for part = FIRST, #ARGV, 2 do
  local ids, packed, at = {}, ARGV[part + 1], 1
  while at <= #packed do
    local len = string.byte(packed, at)
    ids[#ids + 1] = string.sub(packed, at + 1, at + len)
    at = at + len + MEMBER_LEN
  end
  for from = 1, #ids, 1000 do
    local upto = math.min(from + 999, #ids)
    local there = redis.call('SMISMEMBER', K('b:' .. ARGV[part]), unpack(ids, from, upto))
    for i, is in ipairs(there) do
      if is == 0 then changed[#changed + 1] = ids[from + i - 1] end
    end
  end
  parts[#parts + 1] = ids
end
if #changed > 0 then return {'changed', unpack(changed)} end

local blank, prefix, call = 'Q\0\0\0\0' .. rid, K('m:'), redis.call
local untried = struct.unpack('B', ARGV[11], MEMBERS_HEAD_LEN) < 2
local all = {ARGV[11]}
for i, ids in ipairs(parts) do
  local nonce, packed, at = ARGV[FIRST + 2 * i - 2], ARGV[FIRST + 2 * i - 1], 1
  all[i + 1] = packed
  in_pieces('SREM', K('b:' .. nonce), ids)
  touched[nonce] = true
  for _, its_id in ipairs(ids) do
    local header = blank
    if not untried then
      at = at + #its_id + 1
      header = 'Q' .. string.sub(packed, at, at + 3) .. rid
      at = at + MEMBER_LEN - 1
    end
    call('SETRANGE', prefix .. its_id, 1, header)
  end
end
local lease_us = tonumber(call('HGET', K('cfg'), 'lease_us'))
call('SET', K('qm:' .. rid), table.concat(all))
local oldest = string.sub(ARGV[11], 1, 8)
call('SET', K('m:' .. id), 'PL' .. struct.pack('>HHc16c1c1', 0, tonumber(ARGV[7]), rid, prio, '-')
  .. ARGV[8] .. oldest .. ARGV[9] .. string.rep('\0', 8) .. struct.pack('>BBH', #tenant, #count, 0)
  .. tenant .. count .. body)
call('HSET', K('q'), id, count)
call('SADD', K('b:' .. rid), id)
call('HSET', K('bm:' .. rid), 'worker', worker, 'lane', prio == '0' and 'high' or 'any', 'at', now)
call('ZADD', K('batches'), now + lease_us, rid)
write_tally()
return {'frozen'}
