-- tenants: their weights and caps, as configured. scripts.py puts this text into take, release and
-- census, in the place of their line "--@tenants"; `now` stands before it.
--
-- cfg.tenants is JSON: {"acme": [weight, requests/s or 0 for no cap, burst], "*": [...]}; "*" is any
-- other. What a capped tenant may take yet is a bucket in the hash tb: acme:l its level, acme:a when.
-- The cap is at take: what was taken and comes back unsent gives it back.
local tenants, caps = redis.call('HGET', K('cfg'), 'tenants'), false
tenants = tenants and tenants ~= '' and cjson.decode(tenants) or {}
for _, t in pairs(tenants) do caps = caps or t[2] > 0 end

local function terms(tenant)
  return tenants[tenant] or tenant ~= '' and tenants['*'] or {1, 0, 0}
end

-- How many a tenant may take now, in how many us it is worth asking for more (a tenth of a second's
-- worth: an invitation for each single message would cost more than the message), and its level;
-- nil where it has no cap. The fourth: its clock is ahead of ours (heed_clock).
local function allowance(tenant)
  local t = terms(tenant)
  if t[2] <= 0 then return nil end
  local b = redis.call('HMGET', K('tb'), tenant .. ':l', tenant .. ':a')
  local level, at = tonumber(b[1]) or t[3], tonumber(b[2]) or now
  level = math.min(t[3], level + math.max(0, now - at) * t[2] / 1000000)
  local lot = math.max(1, math.min(t[3], t[2] / 10))
  return math.max(0, math.floor(level)), math.max(0, math.ceil((lot - level) * 1000000 / t[2])),
    level, at > now
end

-- After a clock that stepped back, a tenant would gain nothing for the length of the step.
local function heed_clock(tenant)
  redis.call('HSET', K('tb'), tenant .. ':a', now)
end

local function spend(tenant, count)
  local _, _, level = allowance(tenant)
  if not level then return end
  redis.call('HSET', K('tb'), tenant .. ':l', level - count, tenant .. ':a', now)
  -- A bucket that is full again is as good as none. One at random is looked at each time, so that
  -- those of tenants seen once do not stay for ever.
  local other = string.sub(redis.call('HRANDFIELD', K('tb')), 1, -3)
  local _, _, its_level = allowance(other)
  if not its_level or its_level >= terms(other)[3] then
    redis.call('HDEL', K('tb'), other .. ':l', other .. ':a')
  end
end
