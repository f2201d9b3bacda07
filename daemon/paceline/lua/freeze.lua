#!lua flags=allow-oom
--@lib
-- freeze: messages that this worker holds -> one merged request, held by it too, under a lease of its
-- own. From now on they are begun and settled as one (merged.lua).
-- Repeated with the same id it answers the same.
--
-- KEYS  {destination}
-- ARGV  now_us or '', worker id, request id (16 characters, also the first nonce of its lease), body,
--       bytes of all members' payloads, then, as often as needed, a nonce and the members held
--       under it: for each, B length and id, SHA-1 of its payload c20; in the order of the body
-- Returns {'frozen'}, or {'changed', id, ...}: these are not this worker's any more (cancelled,
--         expired, fenced): nothing was written; build the request without them.
T = KEYS[1]
local now, worker, rid, body, bytes = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local id = '+' .. rid
if redis.call('HEXISTS', K('q'), id) == 1 then return {'frozen'} end

local cfg = redis.call('HMGET', K('cfg'), 'lease_us', 'max_age_us')
local lease_us, max_age_us = tonumber(cfg[1]), tonumber(cfg[2])
local members, changed, shas = {}, {}, {}
local oldest, newest, first_expiry, seq, tries, marks, prio, tenant = now, 0, 0, nil, 0, 0, '2', ''
local expire, tried = 0, 0
for part = 6, #ARGV, 2 do
  local nonce, packed = ARGV[part], ARGV[part + 1]
  local at = 1
  while at <= #packed do
    local len = string.byte(packed, at)
    local its_id = string.sub(packed, at + 1, at + len)
    local m = read(its_id)
    if not m or m.nonce ~= nonce or m.state ~= 'L' or m.flag == 'c' then
      changed[#changed + 1] = its_id
    elseif is_over(m, now, max_age_us) then
      expire_message(m, now)
      changed[#changed + 1] = its_id
    else
      members[#members + 1] = m
      shas[#members] = string.sub(packed, at + len + 1, at + len + 20)
      if m.at < oldest then oldest = m.at end
      if m.at > newest then newest = m.at end
      if m.expires > 0 then
        expire = 1
        if first_expiry == 0 or m.expires < first_expiry then first_expiry = m.expires end
      end
      if m.attempts > 0 or m.tries > 0 then tried = 2 end
      if not seq or m.seq < seq then seq = m.seq end
      if m.tries > tries then tries = m.tries end
      if m.prio < prio then prio = m.prio end
      tenant = m.tenant
    end
    at = at + len + 21
  end
end
if #changed > 0 or #members == 0 then
  write_tally()
  return {'changed', unpack(changed)}
end

local from, lines = {}, {struct.pack(MEMBERS_HEAD, newest, bytes, expire + tried)}
for i, m in ipairs(members) do
  local left = from[m.nonce] or {}
  from[m.nonce] = left
  left[#left + 1] = m.id
  m.state, m.nonce = 'Q', rid
  write(m)
  lines[i + 1] = string.char(#m.id) .. m.id .. shas[i] .. struct.pack('>d', m.at)
end
for nonce, ids in pairs(from) do
  in_pieces('SREM', K('b:' .. nonce), ids)
  touched[nonce] = true
end
local count = tostring(#members)
redis.call('SET', K('qm:' .. rid), table.concat(lines))
redis.call('SET', K('m:' .. id), struct.pack(HEADER, 'P', 'L', 0, tries, rid, prio, '-', seq, oldest,
  first_expiry, 0, #tenant, #count, 0) .. tenant .. count .. body)
redis.call('HSET', K('q'), id, count)
redis.call('SADD', K('b:' .. rid), id)
redis.call('HSET', K('bm:' .. rid), 'worker', worker, 'lane', prio == '0' and 'high' or 'any', 'at', now)
redis.call('ZADD', K('batches'), now + lease_us, rid)
write_tally()
return {'frozen'}
