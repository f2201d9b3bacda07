#!lua flags=allow-oom
--@lib
-- take: ready -> leased, up to n messages, by this worker under a nonce (the fencing token).
-- Repeated with the same nonce it returns the same batch. Which messages is settled here, at the
-- last moment: highest priority first, at least 10% for bulk while some waits, fair between
-- tenants (each in turn, by what it was served over its weight: the ring's score).
--
-- KEYS  {destination}
-- ARGV  now_us or '', worker id, nonce (16 characters), n, lane (high|any), invitation id or ''
-- Returns {'batch', id, bytes, id, bytes, ...} (bytes of the whole string, header included; may
--         be empty), or {'closed', what}, {'stale'} (the invitation was used or ran out),
--         {'not-live'} (the worker's own lease ran out: it says so by slots first).
T = KEYS[1]
local now, worker, nonce, n, lane = clock(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local batch = K('b:' .. nonce)

local function reply(ids)
  local out = {'batch'}
  for _, id in ipairs(ids) do
    out[#out + 1] = id
    out[#out + 1] = redis.call('STRLEN', K('m:' .. id))
  end
  return out
end

if redis.call('EXISTS', batch) == 1 then
  local held = {}
  for _, id in ipairs(redis.call('SMEMBERS', batch)) do
    local m = read(id)
    if m then held[#held + 1] = {id = id, prio = m.prio, seq = m.seq} end
  end
  table.sort(held, function(a, b)
    if a.prio ~= b.prio then return a.prio < b.prio end
    return a.seq < b.seq
  end)
  for i, m in ipairs(held) do held[i] = m.id end
  return reply(held)
end

if ARGV[6] ~= '' then
  redis.call('HDEL', K('invn'), ARGV[6])
  if redis.call('ZREM', K('inv'), ARGV[6]) == 0 then return {'stale'} end
end
local what = closed(now)
if what then return {'closed', what} end
-- The breaker is open and its wait is over: one message is the probe, and for all others it is
-- closed until that one's result is known, or can no more be awaited.
local probing = redis.call('HGET', K('gate'), 'breaker')
if probing then n = math.min(n, 1) end
local live_until = redis.call('ZSCORE', K('workers'), worker)
if not live_until or tonumber(live_until) <= now then return {'not-live'} end

local cfg = redis.call('HMGET', K('cfg'), 'max_age_us', 'lease_us')
local max_age_us, lease_us = tonumber(cfg[1]), tonumber(cfg[2])
local taken = {}

local function keep(id)
  local m = read(id)
  -- A place without its message: somebody deleted the key. audit tells; nothing stalls.
  if not m or m.state ~= 'R' then return end
  if is_over(m, now, max_age_us) then
    expire_message(m, now)
    return
  end
  m.state, m.nonce = 'L', nonce
  write(m)
  taken[#taken + 1] = id
end

--@tenants

-- The tenant that was served least of those that may be served, and its part of all weights.
local function next_tenant(ring)
  if not next(tenants) then
    local first = redis.call('ZRANGE', ring, 0, 0)[1]
    return first, 1 / math.max(1, redis.call('ZCARD', ring)), 1
  end
  local total, chosen, most = 0, nil, nil
  for _, tenant in ipairs(redis.call('ZRANGE', ring, 0, -1)) do
    local may = caps and allowance(tenant)
    if may ~= 0 then
      total = total + terms(tenant)[1]
      if not chosen then chosen, most = tenant, may end
    end
  end
  if not chosen then return nil end
  return chosen, terms(chosen)[1] / total, terms(chosen)[1], most
end

local function pop(prio, upto)
  local ring = K('t:' .. prio)
  while #taken < upto do
    local first, part, weight, most = next_tenant(ring)
    if not first then return end
    local share = math.max(1, math.floor((upto - #taken) * part))
    if most then share = math.min(share, most) end
    local place = K('r:' .. prio .. ':' .. first)
    local got = redis.call('ZPOPMIN', place, share)
    for i = 1, #got, 2 do keep(got[i]) end
    if redis.call('EXISTS', place) == 0 then
      redis.call('ZREM', ring, first)
    else
      redis.call('ZINCRBY', ring, #got / 2 / weight, first)
    end
    if caps then spend(first, #got / 2) end
  end
end

if lane == 'high' then
  pop(0, n)
else
  -- What a batch of less than ten cannot give bulk is owed to it (in tenths of a message):
  -- rounded up, a batch of one would be all bulk, however much of high waits.
  local bulk_waits, owed, floor = redis.call('EXISTS', K('t:2')) == 1, 0, 0
  if bulk_waits then
    owed = tonumber(redis.call('HGET', K('gate'), 'bulk_owed') or 0) + n
    floor = math.min(n, math.floor(owed / 10))
  end
  pop(0, n - floor)
  pop(1, n - floor)
  local before = #taken
  pop(2, n)
  if bulk_waits then
    owed = redis.call('EXISTS', K('t:2')) == 1 and math.max(0, owed - 10 * (#taken - before)) or 0
    redis.call('HSET', K('gate'), 'bulk_owed', owed)
  end
  pop(0, n)
  pop(1, n)
end

if #taken > 0 then
  redis.call('SADD', batch, unpack(taken))
  redis.call('HSET', K('bm:' .. nonce), 'worker', worker, 'lane', lane, 'at', now)
  redis.call('ZADD', K('batches'), now + lease_us, nonce)
  if probing then
    local wait_us = tonumber(redis.call('HGET', K('cfg'), 'probe_wait_us'))
    redis.call('HSET', K('gate'), 'probe', taken[1], 'hold_until', now + wait_us, 'hold_kind',
      'breaker', 'hold_since', now, 'hold_why', 'probing with message ' .. taken[1])
  end
end
write_tally()
return reply(taken)
