#!lua flags=allow-oom
--@lib
-- release: one invitation into the window. An invitation says to whatever worker gets it "take up
-- to n"; which messages, is settled at take. It is leased: RQ may lose the job that carries it, and
-- then its place in the window frees itself.
--
-- KEYS  {destination}
-- ARGV  now_us or '', lane (high|any), invitation id, largest batch, invitation lease us
-- Returns {n, why, retry_us}: n messages invited; 0 with why: idle, covered (all that waits is
--         invited), paused/held/..., no-worker, tenant-cap (all that waits is over its tenant's own
--         rate; retry_us says when not), window (enough is out already), rate (the bucket of
--         releases; retry_us says when).
T = KEYS[1]
local now, lane, invitation = clock(ARGV[1]), ARGV[2], ARGV[3]
local largest, lease_us = tonumber(ARGV[4]), tonumber(ARGV[5])

-- After a clock that stepped back a lost invitation would hold its place for the length of the step.
local longest = string.format('%.0f', now + lease_us)
for _, far in ipairs(redis.call('ZRANGEBYSCORE', K('inv'), '(' .. longest, '+inf')) do
  redis.call('ZADD', K('inv'), longest, far)
end
for _, old in ipairs(redis.call('ZRANGEBYSCORE', K('inv'), '-inf', now)) do
  redis.call('ZREM', K('inv'), old)
  redis.call('HDEL', K('invn'), old)
end
if redis.call('ZSCORE', K('inv'), invitation) then return {0, 'repeated', 0} end

lanes_as(redis.call('HGET', K('cfg'), 'endpoints'))
-- The ring of what may be taken now.
local ring_of = lanes and 'el:' or 't:'
local out, standing = {high = 0, any = 0}, {high = 0, any = 0}
for _, what in ipairs(redis.call('HVALS', K('invn'))) do
  local its_lane, n = what:match('^(%a+):(%d+)$')
  out[its_lane] = out[its_lane] + tonumber(n)
  standing[its_lane] = standing[its_lane] + 1
end

--@tenants
-- What may be taken of those that wait: `left` of a capped tenant, whatever its priorities.
local capped_us
local left = {}
local function waiting(prio)
  local total = 0
  if lanes then
    -- Of thousands of lanes no more is asked than whether it is enough.
    for _, lane in ipairs(redis.call('ZRANGE', K('el:' .. prio), 0, largest + out.high + out.any)) do
      total = total + redis.call('ZCARD', K('r:' .. prio .. ':' .. lane))
      if total > largest + out.high + out.any then break end
    end
    return total
  end
  for _, tenant in ipairs(redis.call('ZRANGE', K('t:' .. prio), 0, -1)) do
    local here = redis.call('ZCARD', K('r:' .. prio .. ':' .. tenant))
    if caps then
      local may, more_us, _, ahead = allowance(tenant)
      if ahead then heed_clock(tenant) end
      if may then
        may = left[tenant] or may
        if may < here then here, capped_us = may, math.min(capped_us or more_us, more_us) end
        left[tenant] = may - here
      end
    end
    total = total + here
  end
  return total
end

local want
if lane == 'high' then
  want = waiting(0) - out.high
else
  -- An "any" batch takes high messages too, should their own invitation be late.
  want = waiting(1) + waiting(2) - out.any
end
if want < 1 and capped_us and out.high + out.any == 0 then return {0, 'tenant-cap', capped_us} end
if want < 1 then return {0, out.high + out.any > 0 and 'covered' or 'idle', 0} end
local why = closed(now)
if why then return {0, why, 0} end
local workers = redis.call('ZCOUNT', K('workers'), '(' .. string.format('%.0f', now), '+inf')
if workers == 0 then return {0, 'no-worker', 0} end

local cfg = redis.call('HMGET', K('cfg'), 'rate', 'burst', 'merge_most')
local g = redis.call('HMGET', K('gate'), 'rel_level', 'rel_at', 'rate_set', 'pace', 'breaker')
local rate, burst = rate_of(cfg[1], g[3], g[4]), tonumber(cfg[2])
-- A rate set live brings its own size of batch (settings.default_batch).
if g[3] then
  largest = math.max(1, math.min(500, burst, math.ceil(math.max(math.min(100, 2 * rate), rate))))
end
-- Where many messages go into one request, a batch is as many as fill a few (the worker takes them one
-- after the other, each as late as it can); rate, burst and window are in requests.
local REQUESTS = 4
local merge = tonumber(cfg[3] or 1)
if merge > 1 then largest = math.max(largest, REQUESTS * merge) end
-- A batch is sent by the worker that takes it, over that worker's own connections. No more of it
-- than two seconds of its share of the rate: where each of many workers has one connection, the first
-- would take a whole second of the rate and send it alone, and the others would wait for work.
local working = 0
for _, slots in ipairs(redis.call('HVALS', K('slots'))) do
  if tonumber(slots) > 0 then working = working + 1 end
end
local share = math.max(1, math.ceil(2 * rate / math.max(1, working))) * merge
local n = math.min(want, largest, share)
-- Who is next is settled when a batch is taken: where tenants share, not for long beforehand.
if redis.call('ZCARD', K(ring_of .. 1)) > 1 or redis.call('ZCARD', K(ring_of .. 2)) > 1 then
  n = math.min(n, math.max(1, math.ceil(rate / 10 / math.max(1, working))) * merge)
end
-- What comes in one by one goes into the next invitation while a few stand unanswered: each costs a worker
-- more than its message, and where they come faster than workers answer, they run out before they are.
if n == want and standing[lane] >= 2 * workers then return {0, 'covered', 0} end
if g[5] then n = 1 end
local ahead = math.max(2 * workers * largest, math.floor(rate) * merge) - out.high
-- High does not wait behind what is out for the others.
if lane ~= 'high' then ahead = ahead - out.any end
-- A whole batch or none: filling the last gap of the window would make batches of one.
if ahead < n then return {0, 'window', 0} end
-- The bucket of releases: the same rate and burst as the one at the wire. It only smooths; what
-- the provider sees is decided by begin. High invitations draw on it but never wait for it. A batch
-- larger than the burst waits for a full bucket and leaves it owing.
local level, at = tonumber(g[1] or burst), tonumber(g[2] or now)
-- One batch above the burst: else what comes in while a full bucket waits for the next turn is lost.
local cost = math.ceil(n / merge)
level = math.min(burst + math.ceil(largest / merge), level + math.max(0, now - at) * rate / 1000000)
local need = math.min(cost, burst)
if lane ~= 'high' and level < need then
  redis.call('HSET', K('gate'), 'rel_level', level, 'rel_at', now)
  return {0, 'rate', math.ceil((need - level) * 1000000 / rate)}
end
redis.call('HSET', K('gate'), 'rel_level', level - cost, 'rel_at', now)
redis.call('ZADD', K('inv'), now + lease_us, invitation)
redis.call('HSET', K('invn'), invitation, lane .. ':' .. n)
return {n, 'released', 0}
