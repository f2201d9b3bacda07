#!lua flags=no-writes,allow-oom
--@lib
-- census: every term of the conservation law in one call, and what status shows.
--   accepted + moved_in = sent + expired + cancelled + dropped + moved_out   (counters)
--                       + dead + parked + ready + scheduled + leased         (container sizes)
--
-- KEYS  {destination}
-- ARGV  now_us or ''
-- Returns flat lists: {now, counters, gate, cfg, workers with scores, slots, facts, outcomes,
--         histogram, sizes, daemons with scores}
--         sizes: dead, parked, scheduled, leased, begun batches..., see below (name, value)
T = KEYS[1]
local now = clock(ARGV[1])
local names, ready, oldest, capped, left = {'high', 'normal', 'bulk'}, 0, nil, {}, {}
-- A merged request stands in its container as one: what its other members add, by state and priority.
local more, merged, requests = {}, 0, redis.call('HGETALL', K('q'))
for i = 1, #requests, 2 do
  local m, count = read(requests[i]), tonumber(requests[i + 1])
  if m then
    local where = m.state
    if where == 'R' then
      -- Held, unless it is in its place (held, in lib.lua).
      where = redis.call('ZSCORE', K('r:' .. m.prio .. ':' .. m.tenant), m.id) and 'R' .. m.prio or 'L'
    end
    more[where] = (more[where] or 0) + count - 1
    merged = merged + count
  end
end
local function more_in(where) return more[where] or 0 end
local sizes = {'dead', redis.call('ZCARD', K('dead')), 'parked', redis.call('ZCARD', K('parked')),
  'scheduled', redis.call('ZCARD', K('s')) + more_in('W'), 'merged', merged,
  'merged_requests', #requests / 2}
local function put(name, value)
  sizes[#sizes + 1] = name
  sizes[#sizes + 1] = value
end
--@tenants
for prio = 0, 2 do
  local here = more_in('R' .. prio)
  for _, tenant in ipairs(redis.call('ZRANGE', K('t:' .. prio), 0, -1)) do
    local place = K('r:' .. prio .. ':' .. tenant)
    local count = redis.call('ZCARD', place)
    here = here + count
    local may = caps and (left[tenant] or allowance(tenant))
    if may then
      capped[tenant] = (capped[tenant] or 0) + math.max(0, count - may)
      left[tenant] = math.max(0, may - count)
    end
    local first = redis.call('ZRANGE', place, 0, 0)[1]
    -- Its moment alone: of thousands of tenants and lanes the whole header would be dear.
    local at = first and redis.pcall('GETRANGE', K('m:' .. first), 32, 39)
    if type(at) == 'string' and #at == 8 then
      at = struct.unpack('>d', at)
      oldest = math.min(oldest or at, at)
    end
  end
  put('ready_' .. names[prio + 1], here)
  ready = ready + here
end
put('ready', ready)
local leased = more_in('L') + more_in('B')
local nonces = redis.call('ZRANGE', K('batches'), 0, -1)
for _, nonce in ipairs(nonces) do leased = leased + redis.call('SCARD', K('b:' .. nonce)) end
put('leased', leased)
-- What caps hold back: all of it, and by tenant for as many as anybody would read.
local held_back, named = 0, 0
for tenant, count in pairs(capped) do
  held_back = held_back + count
  if count > 0 and named < 100 then
    named = named + 1
    put('capped:' .. tenant, count)
  end
end
put('capped', held_back)
if lanes_of('any') then
  local failing, disabled = 0, 0
  for _, state in ipairs(redis.call('HVALS', K('es'))) do
    if string.byte(state) == 100 then disabled = disabled + 1 else failing = failing + 1 end
  end
  put('endpoints', redis.call('HLEN', K('ep')))
  put('endpoints_failing', failing)
  put('endpoints_disabled', disabled)
  local open = 0
  for prio = 0, 2 do open = open + redis.call('ZCARD', K('el:' .. prio)) end
  put('lanes_open', open)
end
put('batches', #nonces)
put('invitations', redis.call('ZCARD', K('inv')))
put('oldest_us', oldest and math.max(0, now - oldest) or 0)
-- Those of paused campaigns are never due (campaigns.lua).
local due = redis.call('ZRANGEBYSCORE', K('s'), '-inf', '(+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
local last = redis.call('ZREVRANGEBYSCORE', K('s'), '(+inf', '-inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
put('campaign_paused', redis.call('ZCOUNT', K('s'), '+inf', '+inf'))
put('last_due_us', last and math.max(0, tonumber(last) - now) or -1)
put('next_due_us', due and math.max(0, tonumber(due) - now) or -1)
return {string.format('%.0f', now), redis.call('HGETALL', K('n')), redis.call('HGETALL', K('gate')),
  redis.call('HGETALL', K('cfg')), redis.call('ZRANGE', K('workers'), 0, -1, 'WITHSCORES'),
  redis.call('HGETALL', K('slots')), redis.call('HGETALL', K('facts')), redis.call('HGETALL', K('o')),
  redis.call('HGETALL', K('h')), sizes, redis.call('ZRANGE', K('daemons'), 0, -1, 'WITHSCORES')}
