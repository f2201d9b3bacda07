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
--         be empty), or {'unread', id, id, ...} where messages are merged, or {'closed', what}, {'stale'} (the invitation was used or ran out),
--         {'not-live'} (the worker's own lease ran out: it says so by slots first).
T = KEYS[1]
local now, worker, nonce, n, lane = clock(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local batch = K('b:' .. nonce)

local unread
local function reply(ids)
  local out = {unread and 'unread' or 'batch'}
  for _, id in ipairs(ids) do
    out[#out + 1] = id
    if not unread then out[#out + 1] = redis.call('STRLEN', K('m:' .. id)) end
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

local cfg = redis.call('HMGET', K('cfg'), 'max_age_us', 'lease_us', 'merge_most', 'endpoints')
lanes_as(cfg[4])
local max_age_us, lease_us = tonumber(cfg[1]), tonumber(cfg[2])
-- What is merged is taken by the thousand: nothing of it is read or written here but its place. The
-- batch's set says who holds it (held), its age is looked at when it is merged or begun. A request that
-- is merged already is as many as fit into one.
local merge = tonumber(cfg[3] or 1)
unread = merge > 1
local taken, lumps, load = {}, {}, 0

local function load_of(id) return unread and is_request(id) and merge or 1 end

-- How many of these, the first ones, are a load of `share`.
local function enough(ids, share)
  if not unread then return #ids end
  local count, sum = 0, 0
  while count < #ids and sum < share do
    count = count + 1
    sum = sum + load_of(ids[count])
  end
  return count
end

local function keep(id)
  -- No message has such an id: somebody put it there by hand. audit tells of its key.
  if #id > 129 or not string.find(id, '^%+?[%w._-]+$') then return end
  if unread then
    taken[#taken + 1] = id
    load = load + load_of(id)
    return
  end
  local m = read(id)
  -- A place without its message: somebody deleted the key. audit tells; nothing stalls.
  if not m or m.state ~= 'R' then return end
  if is_over(m, now, max_age_us) then
    expire_message(m, now, max_age_us)
    return
  end
  m.state, m.nonce = 'L', nonce
  write(m)
  if lanes_of(m.tenant) then lanes.count(m.tenant, 1) end
  taken[#taken + 1] = id
  load = load + 1
end

--@tenants

-- Takes up to `share` messages of one tenant's. Returns how many left their place, and whether it has
-- more.
local function serve(prio, ring, tenant, weight, share)
  local place, before = K('r:' .. prio .. ':' .. tenant), #taken
  local got = redis.call('ZRANGE', place, 0, share - 1)
  local gone = enough(got, share)
  redis.call('ZREMRANGEBYRANK', place, 0, gone - 1)
  for i = 1, gone do keep(got[i]) end
  lumps[#lumps + 1] = {from = before + 1, upto = #taken}
  if caps and #taken > before then spend(tenant, #taken - before) end
  local more = redis.call('EXISTS', place) == 1
  if more then
    redis.call('ZINCRBY', ring, gone / weight, tenant)
  else
    redis.call('ZREM', ring, tenant)
  end
  return gone, more
end

-- The ring as a list by turn, the weights in it, and apart who may have nothing now.
local function line_up(ring)
  local line, total, barred = {}, 0, {}
  local all = redis.call('ZRANGE', ring, 0, -1, 'WITHSCORES')
  for i = 1, #all, 2 do
    local it = {tenant = all[i], turn = tonumber(all[i + 1]), weight = terms(all[i])[1]}
    if caps then it.may = allowance(it.tenant) end
    if it.may == 0 then
      barred[#barred + 1] = it
    else
      line[#line + 1] = it
      total = total + it.weight
    end
  end
  return line, total, barred
end

-- `line` as a heap by turn, its first having changed.
local function sink(line)
  local i = 1
  while true do
    local least = i
    for child = 2 * i, 2 * i + 1 do
      if line[child] and line[child].turn < line[least].turn then least = child end
    end
    if least == i then return end
    line[i], line[least] = line[least], line[i]
    i = least
  end
end

-- Each in turn, by what it was served over its weight, and as many at a time as its weight is a
-- part of all. Who is at its cap is owed nothing for that, and goes on with the turn of the first
-- that is not: else whoever joins "at the lowest turn" would join where the capped one was left
-- behind, and keep all others waiting.
local function pop_by_terms(prio, ring, upto)
  if load >= upto then return end
  local line, total, barred = line_up(ring)
  while load < upto and line[1] do
    local first, before = line[1], #taken
    local share = math.max(1, math.floor((upto - load) * first.weight / total))
    if first.may then share = math.min(share, first.may) end
    local got, more = serve(prio, ring, first.tenant, first.weight, share)
    first.turn = first.turn + got / first.weight
    if first.may then first.may = first.may - (#taken - before) end
    if not more or first.may == 0 then
      if more then barred[#barred + 1] = first end
      total = total - first.weight
      line[1] = line[#line]
      line[#line] = nil
    end
    if line[1] then sink(line) end
  end
  for _, it in ipairs(barred) do
    if line[1] and it.turn < line[1].turn then
      redis.call('ZADD', ring, 'XX', 'GT', line[1].turn, it.tenant)
    end
  end
end

-- The same of lanes: of each as many as its endpoint may have more. One that may have none leaves the
-- ring, until that changes.
local function pop_by_lanes(prio, upto)
  local ring = K('el:' .. prio)
  while load < upto do
    local lane = redis.call('ZRANGE', ring, 0, 0)[1]
    if not lane then return end
    local place, before = K('r:' .. prio .. ':' .. lane), #taken
    local free, own = lanes.lane_free(lane)
    local share = math.max(1, math.floor((upto - load) / redis.call('ZCARD', ring)))
    local got = free > 0 and redis.call('ZRANGE', place, 0, math.min(free, share) - 1) or {}
    if #got > 0 then
      redis.call('ZREMRANGEBYRANK', place, 0, #got - 1)
      for _, id in ipairs(got) do keep(id) end
      lumps[#lumps + 1] = {from = before + 1, upto = #taken}
      if #taken > before then lanes.draw(lane, #taken - before) end
    end
    if redis.call('EXISTS', place) == 0 then
      redis.call('ZREM', ring, lane)
      redis.call('ZREM', K('t:' .. prio), lane)
    elseif #got > 0 then
      redis.call('ZINCRBY', ring, #got, lane)
    else
      redis.call('ZREM', ring, lane)
      if not own then lanes.set_aside(prio, lane) end
    end
  end
end

local function pop_in_lumps(prio, upto)
  if lanes then return pop_by_lanes(prio, upto) end
  local ring = K('t:' .. prio)
  if next(tenants) then return pop_by_terms(prio, ring, upto) end
  while load < upto do
    local first = redis.call('ZRANGE', ring, 0, 0)[1]
    if not first then return end
    serve(prio, ring, first, 1, math.max(1, math.floor((upto - load) / redis.call('ZCARD', ring))))
  end
end

-- They are sent in the order of this list: not all of one tenant's before the first of the next.
local function interleave(from)
  if #lumps < 2 then return end
  local order = {}
  for number, lump in ipairs(lumps) do
    for place = lump.from, lump.upto do
      local part = (place - lump.from + 0.5) / (lump.upto - lump.from + 1)
      order[#order + 1] = {id = taken[place], part = part, number = number}
    end
  end
  table.sort(order, function(a, b)
    if a.part ~= b.part then return a.part < b.part end
    return a.number < b.number
  end)
  for place, it in ipairs(order) do taken[from + place - 1] = it.id end
end

local function pop(prio, upto)
  local from = #taken + 1
  lumps = {}
  pop_in_lumps(prio, upto)
  interleave(from)
end

if lane == 'high' then
  pop(0, n)
else
  -- What a batch of less than ten cannot give bulk is owed to it (in tenths of a message):
  -- rounded up, a batch of one would be all bulk, however much of high waits.
  local bulk_ring = K(lanes and 'el:2' or 't:2')
  local bulk_waits, owed, floor = redis.call('EXISTS', bulk_ring) == 1, 0, 0
  if bulk_waits then
    owed = tonumber(redis.call('HGET', K('gate'), 'bulk_owed') or 0) + n
    floor = math.min(n, math.floor(owed / 10))
  end
  pop(0, n - floor)
  pop(1, n - floor)
  local before = #taken
  pop(2, n)
  if bulk_waits then
    -- What is held back by its own cap is owed nothing.
    local got = #taken - before
    owed = got >= floor and redis.call('EXISTS', bulk_ring) == 1 and math.max(0, owed - 10 * got) or 0
    redis.call('HSET', K('gate'), 'bulk_owed', owed)
  end
  pop(0, n)
  pop(1, n)
end

if #taken > 0 then
  in_pieces('SADD', batch, taken)
  redis.call('HSET', K('bm:' .. nonce), 'worker', worker, 'lane', lane, 'at', now)
  redis.call('ZADD', K('batches'), now + lease_us, nonce)
  if probing then
    local wait_us = tonumber(redis.call('HGET', K('cfg'), 'probe_wait_us'))
    redis.call('HSET', K('gate'), 'probe', taken[1], 'probe_at', now, 'hold_until', now + wait_us, 'hold_kind',
      'breaker', 'hold_since', now, 'hold_why', 'probing with message ' .. taken[1])
  end
end
write_tally()
return reply(taken)
