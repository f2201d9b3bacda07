#!lua flags=allow-oom
--@lib
-- slots: a worker's heartbeat, and its share of the account's connections. Live workers divide the
-- connections evenly; one that must shrink keeps what it has open until it says it closed it, so
-- the sum never exceeds the account's.
--
-- A worker whose lease lapsed may be frozen with a permit in hand. Its connections are given to the
-- others, and for each the bucket holds one permit less (gate.k), until it is back or known dead.
-- Where that would leave no bucket, they are not given out.
--
-- A worker's totals (connections opened, reused, closed by reason, ...) become the destination's
-- here, each event once: the facts carry `totals`, {process, now, counted}, see totals.py. What is
-- remembered of the same process is subtracted; where nothing is (it was buried, or Redis came back
-- empty), what it knows to have been counted.
--
-- KEYS  {destination}
-- ARGV  now_us or '', op, worker id, connections open now, facts about the worker (JSON)
--   op  beat   alive (again); asks for its share
--       leave  stopped cleanly, everything settled or given back; of its facts only totals count
--       bury   known dead (its process is gone): its slots are free and owe nothing, and its leases
--              end now, for it will neither renew nor settle
--       bury_lapsed  the same of one that seemed dead because it was silent; unless it lives again
-- Returns {allowance, live workers, bucket size K, requests/s now as text}; {} where it lives again
T = KEYS[1]
local now, op, me, open = clock(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])
local cfg = redis.call('HMGET', K('cfg'), 'lease_us', 'connections', 'burst', 'reserve', 'rate')
local lease_us, most, burst = tonumber(cfg[1]), tonumber(cfg[2]), tonumber(cfg[3])
local gate = redis.call('HMGET', K('gate'), 'rate_set', 'pace', 'conc')

if op == 'bury_lapsed' then
  if tonumber(redis.call('ZSCORE', K('workers'), me) or 0) > now then return {} end
  op = 'bury'
end

local function totals_of(json)
  local ok, facts = pcall(cjson.decode, json or '')
  local totals = ok and type(facts) == 'table' and facts.totals
  if type(totals) == 'table' and type(totals.now) == 'table' then return totals end
  return nil
end

local told = op ~= 'bury' and totals_of(ARGV[5])
if told then
  local last = totals_of(redis.call('HGET', K('facts'), me))
  local known = type(told.counted) == 'table' and told.counted or {}
  if last and last.process == told.process then known = last.now end
  for name, total in pairs(told.now) do
    -- The prefix keeps what a worker says apart from the law's terms.
    local more = (tonumber(total) or 0) - (tonumber(known[name]) or 0)
    bump('net:' .. name, math.max(0, math.floor(more)))
  end
  write_tally()
end

if op == 'beat' then
  redis.call('ZADD', K('workers'), now + lease_us, me)
  redis.call('HSET', K('facts'), me, ARGV[5])
else
  redis.call('ZREM', K('workers'), me)
  redis.call('HDEL', K('slots'), me)
  redis.call('HDEL', K('facts'), me)
end
if op == 'bury' then
  for _, nonce in ipairs(redis.call('ZRANGE', K('batches'), 0, -1)) do
    if redis.call('HGET', K('bm:' .. nonce), 'worker') == me then
      redis.call('ZADD', K('batches'), now, nonce)
    end
  end
end

local live, rank, lapsed, others = 0, nil, 0, 0
local held = {}
local flat = redis.call('HGETALL', K('slots'))
for i = 1, #flat, 2 do held[flat[i]] = tonumber(flat[i + 1]) end
local members = redis.call('ZRANGE', K('workers'), 0, -1, 'WITHSCORES')
local names = {}
for i = 1, #members, 2 do
  if tonumber(members[i + 1]) > now then
    names[#names + 1] = members[i]
    if members[i] ~= me then others = others + (held[members[i]] or 0) end
  else
    lapsed = lapsed + (held[members[i]] or 0)
  end
end
table.sort(names)
live = #names
for i, name in ipairs(names) do if name == me then rank = i end end

local usable = math.max(0, math.min(most, burst - 1 - tonumber(cfg[4]) - lapsed))
if lapsed == 0 then usable = math.max(1, usable) end
-- What the provider's answers allow (health.lua): fewer while it fails.
if gate[3] then usable = math.min(usable, math.max(1, math.ceil(tonumber(gate[3])))) end
local mine = 0
if op == 'beat' then
  local share = math.floor(usable / live) + (rank <= usable % live and 1 or 0)
  -- More than it has open only of what nobody else may have open. What it was granted before it
  -- lapsed does not count: the others may have it by now.
  mine = math.max(0, open, math.min(share, usable - others))
  redis.call('HSET', K('slots'), me, mine)
  mine = math.min(mine, share)
end
local standing = others + math.max(tonumber(redis.call('HGET', K('slots'), me) or 0), 0)
local k = math.max(0, burst - math.max(usable, standing) - lapsed)
redis.call('HSET', K('gate'), 'k', k)
return {mine, live, k, tostring(rate_of(cfg[5], gate[1], gate[2]))}
