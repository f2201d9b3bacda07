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

-- How many a tenant may take now, and in how many us one more; nil where it has no cap.
local function allowance(tenant)
  local t = terms(tenant)
  if t[2] <= 0 then return nil end
  local b = redis.call('HMGET', K('tb'), tenant .. ':l', tenant .. ':a')
  local level = tonumber(b[1] or t[3])
  level = math.min(t[3], level + math.max(0, now - tonumber(b[2] or now)) * t[2] / 1000000)
  return math.max(0, math.floor(level)), math.max(0, math.ceil((1 - level) * 1000000 / t[2])), level
end

local function spend(tenant, count)
  local _, _, level = allowance(tenant)
  if level then
    redis.call('HSET', K('tb'), tenant .. ':l', level - count, tenant .. ':a', now)
  end
end
