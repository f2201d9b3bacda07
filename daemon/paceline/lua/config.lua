#!lua flags=allow-oom
--@lib
-- config: the shared copy of a destination's configuration, without secrets. The first process
-- publishes it; one that starts with another is refused while others live by the old one; a reload
-- publishes a new one on purpose, under way.
--
-- KEYS  {destination}
-- ARGV  now_us or '', digest, public configuration (JSON), mode, then field, value, ...
--       (numbers that the scripts read)
--   mode  0     publishes where nobody lives by another
--         1     publishes in any case
--         keep  publishes only where there is none: a Redis that came back empty
-- Returns {'published', version} | {'same', version} | {'differs', version, JSON in force}
T = KEYS[1]
local now, digest, mode = clock(ARGV[1]), ARGV[2], ARGV[4]
local old = redis.call('HMGET', K('cfg'), 'digest', 'version', 'json', 'rate', 'pace', 'endpoints', 'unknown')
local names = {}
for i = 5, #ARGV, 2 do names[#names + 1] = ARGV[i] end
if old[1] == digest then
  -- By a version that did not know of some: they are at their defaults (config_digest.py), whatever one
  -- before it wrote there.
  local there, unknown = redis.call('HMGET', K('cfg'), unpack(names)), ' ' .. (old[7] or '') .. ' '
  for i, name in ipairs(names) do
    local from, upto = string.find(unknown, ' ' .. name .. ' ', 1, true)
    if from then unknown = string.sub(unknown, 1, from) .. string.sub(unknown, upto + 1) end
    if from or not there[i] then redis.call('HSET', K('cfg'), name, ARGV[4 + 2 * i]) end
  end
  if old[7] then redis.call('HSET', K('cfg'), 'unknown', string.match(unknown, '^ *(.-) *$')) end
  return {'same', tonumber(old[2])}
end
local busy = redis.call('ZCOUNT', K('workers'), '(' .. string.format('%.0f', now), '+inf')
  + redis.call('ZCOUNT', K('daemons'), '(' .. string.format('%.0f', now), '+inf')
if old[1] and (mode == 'keep' or (busy > 0 and mode ~= '1')) then
  return {'differs', tonumber(old[2]), old[3]}
end
local version = tonumber(old[2] or 0) + 1
local fields, known = {'digest', digest, 'version', version, 'json', ARGV[3]}, {unknown = true}
for i = 5, #ARGV do fields[#fields + 1] = ARGV[i] end
for i = 1, #fields, 2 do known[fields[i]] = true end
local unknown = {}
for _, name in ipairs(redis.call('HKEYS', K('cfg'))) do
  if not known[name] then unknown[#unknown + 1] = name end
end
redis.call('HDEL', K('cfg'), 'unknown')
if unknown[1] then
  fields[#fields + 1] = 'unknown'
  fields[#fields + 1] = table.concat(unknown, ' ')
end
redis.call('HSET', K('cfg'), unpack(fields))
local cfg = redis.call('HMGET', K('cfg'), 'burst', 'connections', 'reserve', 'rate', 'pace', 'poll_us', 'events', 'endpoints')
if tonumber(cfg[6] or 0) == 0 then redis.call('UNLINK', K('poll')) end
-- Turned off: nobody would trim them any more.
if (cfg[7] or '') == '' and redis.call('UNLINK', K('ev')) == 1 then
  redis.call('HSET', K('n'), 'events_trimmed', redis.call('HGET', K('n'), 'events') or 0)
  redis.call('HDEL', K('evf'), 'entry')
end
-- Each endpoint has its own now: what would have closed that of all is not looked at any more.
if (cfg[8] or '') ~= '' and redis.call('HDEL', K('gate'), 'breaker') == 1 then
  redis.call('HDEL', K('gate'), 'breaker_why', 'probe', 'suspect', 'res')
  if redis.call('HGET', K('gate'), 'hold_kind') == 'breaker' then
    redis.call('HDEL', K('gate'), 'hold_until', 'hold_kind', 'hold_why', 'hold_since')
  end
end
-- While there were none, nobody counted what is leased of each.
if (cfg[8] or '') ~= '' and (old[6] or '') == '' then
  lanes_as(cfg[8])
  lanes.recount(read)
  write_tally()
end
local burst, reserve = tonumber(cfg[1]), tonumber(cfg[3])

if old[1] and (old[4] ~= cfg[4] or old[5] ~= cfg[5]) then
  local g = redis.call('HMGET', K('gate'), 'rate_set', 'pace', 'level', 'at', 'fill_from', 'k')
  -- What came in until now came in at the rate that held until now.
  local level, at = tonumber(g[3]), tonumber(g[4])
  local from = math.max(at or 0, tonumber(g[5] or 0))
  if level and at and now > from then
    local came = (now - from) * rate_of(old[4], g[1], g[2]) / 1000000
    redis.call('HSET', K('gate'), 'level', math.min(tonumber(g[6] or 0), level + came), 'at', now)
  end
  -- A pace that was found under another ceiling: growth goes on from it, above the new one it ends.
  if g[2] and (cfg[5] ~= 'adaptive' or tonumber(g[2]) >= tonumber(g[1] or cfg[4])) then
    redis.call('HDEL', K('gate'), 'pace', 'pace_top', 'pace_from', 'pace_age', 'pace_seen',
      'pace_slow', 'pace_why')
  end
  if cfg[5] ~= 'adaptive' then redis.call('HDEL', K('gate'), 'conc') end
end

-- What workers hold they hold until their next heartbeat, however few there may be now; what lapsed
-- may be held by one that is frozen (slots.lua). Where none is out, it is as if every one were.
local standing, lapsed = 0, 0
local flat = redis.call('HGETALL', K('slots'))
for i = 1, #flat, 2 do
  local until_us = tonumber(redis.call('ZSCORE', K('workers'), flat[i]) or 0)
  if until_us > now then standing = standing + tonumber(flat[i + 1])
  else lapsed = lapsed + tonumber(flat[i + 1]) end
end
local usable = math.max(0, math.min(tonumber(cfg[2]), burst - 1 - reserve - lapsed))
if lapsed == 0 then usable = math.max(1, usable) end
redis.call('HSET', K('gate'), 'k', math.max(0, burst - math.max(usable, standing) - lapsed))
return {'published', version}
