#!lua flags=allow-oom
--@lib
-- endpoint: the registry of a destination's endpoints, by an operator's hand (endpoints.lua).
--
-- KEYS  {destination}
-- ARGV  now_us or '', op, who, and then
--   op  put      name, JSON, name, JSON, ...: registered, or registered anew, and then tried at once; one
--                that is disabled stays so
--       remove   force (0|1), name, ...: not where messages of it wait, unless forced; those that do
--                stay until they are too old, or it is registered again
--       enable   '', name, ...: its trouble is forgotten, and what waits is sent
--       disable  why, name, ...: nothing more is taken for it, from nobody; what waits stays
-- Returns one word a name: new, changed, same; removed, waits, unknown; enabled, well; disabled, already
T = KEYS[1]
local now, op, who = clock(ARGV[1]), ARGV[2], ARGV[3]
lanes_as(redis.call('HGET', K('cfg'), 'endpoints'))
if not lanes then
  return redis.error_reply('PLINVALID destination: it has no endpoints; configure [destinations.'
    .. string.sub(T, 2, -2) .. '.endpoints]')
end

-- Something of its plain lane, or of one by key that waits for it, or is leased. (Of lanes by key that are
-- open, or only wait for their own turn, there is no list: they are found out when they are taken.)
local function has_waiting(name)
  if redis.call('HEXISTS', K('eo'), name) == 1 then return true end
  for prio = 0, 2 do
    -- What waited in some of these may have left by another way.
    local aside = lanes.aside(name, prio)
    local it = redis.call('SPOP', aside)
    while it do
      if redis.call('EXISTS', K('r:' .. it)) == 1 then
        redis.call('SADD', aside, it)
        return true
      end
      it = redis.call('SPOP', aside)
    end
  end
  for prio = 0, 2 do
    if redis.call('EXISTS', K('r:' .. prio .. ':' .. name)) == 1 then return true end
  end
  return false
end

local DO = {}

function DO.remove(name, force)
  if redis.call('HEXISTS', K('ep'), name) == 0 then return 'unknown' end
  if force ~= '1' and has_waiting(name) then return 'waits' end
  redis.call('HDEL', K('ep'), name)
  redis.call('HDEL', K('es'), name)
  redis.call('HDEL', K('tb'), name .. ':l', name .. ':a')
  redis.call('ZREM', K('eb'), name, name .. '/')
  return 'removed'
end

function DO.enable(name)
  if not lanes.registered(name) then return 'unknown' end
  local disabled, state = lanes.trouble_of(name)
  lanes.is_well(name)
  redis.call('HDEL', K('es'), name)
  redis.call('ZREM', K('eb'), name)
  lanes.left[name] = true
  if disabled then tell('endpoint_enabled', name, {'reason', 'by ' .. string.sub(who, 1, 100)}) end
  return state and 'enabled' or 'well'
end

function DO.disable(name, why)
  if not lanes.registered(name) then return 'unknown' end
  if lanes.trouble_of(name) then return 'already' end
  lanes.disable(name, why)
  return 'disabled'
end

local function is_ordered(json)
  local fine, it = pcall(cjson.decode, json or '')
  return fine and type(it) == 'table' and it.ordered == true
end

local words, recount = {}, false
if op == 'put' then
  for i = 4, #ARGV, 2 do
    local name, json = ARGV[i], ARGV[i + 1]
    local old = redis.call('HGET', K('ep'), name)
    words[#words + 1] = not old and 'new' or old == json and 'same' or 'changed'
    redis.call('HSET', K('ep'), name, json)
    if old ~= json then
      -- Of one that was not in order what is leased was not counted so; nor while it was not registered.
      recount = recount or is_ordered(old) ~= is_ordered(json)
        and redis.call('HEXISTS', K('eo'), name) + redis.call('HEXISTS', K('eo'), name .. '/') > 0
      -- Its trouble may have been the old address.
      if not lanes.trouble_of(name) then
        redis.call('HDEL', K('es'), name)
        redis.call('ZREM', K('eb'), name)
      end
    end
    lanes.left[name] = true
  end
  if recount then lanes.recount(read) end
elseif DO[op] then
  for i = 5, #ARGV do words[#words + 1] = DO[op](ARGV[i], ARGV[4]) end
else
  return redis.error_reply('PLINVALID op: must be put, remove, enable or disable')
end
local first = op == 'put' and ARGV[4] or ARGV[5]
log_hand({at_us = string.format('%.0f', now), who = who, what = 'endpoint ' .. op,
  why = tostring(first) .. (#words > 1 and string.format(' and %d more', #words - 1) or '')
    .. (op == 'disable' and ': ' .. ARGV[4] or '')})
write_tally()
return words
