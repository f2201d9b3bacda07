#!lua flags=allow-oom
--@lib
-- move: ready -> ready in the destination it falls back to, as many as the share of the flow allows
-- (lean.lua) and the other has room for. Only what was never begun and never tried: a message that
-- the one provider may have taken must not be given to the other.
--
-- By priority, then place in the queue. What cannot move (tried before, its id known there, too
-- large; where the providers differ, a payload that is no neutral e-mail) is passed over and stays.
-- A call looks at no more than most + LOOKED messages, and the next
-- goes on from there: behind an outage thousands may wait that have been tried.
--
-- KEYS  {from}, {to}: on one server, which alone makes this atomic
-- ARGV  now_us or '', at most how many
-- Returns {moved, why not more: moved (there may be more), share (none, or it is meant for another),
--         paused, pace (the share is used), idle (none waits that may move), unconfigured, draining,
--         closed, full, covered (enough waits there)}
local LOOKED, BYTES = 400, 1048576
-- What waits in the other: as much as it sends in two seconds, so that it may still be held here
-- should the other fail too.
local AHEAD_S = 2
local FROM, TO = KEYS[1], KEYS[2]
local now, most = clock(ARGV[1]), tonumber(ARGV[2])

local function name_of(tag) return string.sub(tag, 2, -2) end

local function ready_here()
  local count = 0
  for prio = 0, 2 do
    for _, tenant in ipairs(redis.call('ZRANGE', K('t:' .. prio), 0, -1)) do
      count = count + redis.call('ZCARD', K('r:' .. prio .. ':' .. tenant))
    end
  end
  return count
end

-- -- how many, by the share ------------------------------------------------------------------

T = FROM
local g = redis.call('HMGET', K('gate'), 'fb_share', 'fb_to', 'fb_credit', 'fb_credit_at', 'rate_set',
  'breaker')
local share = g[2] == name_of(TO) and tonumber(g[1] or 0) or 0
if share <= 0 then return {0, 'share'} end
if closed(now) == 'paused' then return {0, 'paused'} end
local cfg = redis.call('HMGET', K('cfg'), 'rate', 'max_age_us', 'fallback_neutral')
-- Of the rate that is asked for: the pace is what this provider can bear now, and that is little.
local flow = rate_of(cfg[1], g[5]) * share / 100
local passed = math.max(0, now - tonumber(g[4] or now))
-- Reckoned here, for several daemons may move.
local credit = math.min(math.max(2, AHEAD_S * flow), tonumber(g[3] or 0) + passed * flow / 1000000)
local max_age_us, breaker, neutral_only = tonumber(cfg[2]), g[6], cfg[3] == '1'
local left = breaker and ready_here() or nil

local function done(count, why)
  T = FROM
  redis.call('HSET', K('gate'), 'fb_credit', credit - count, 'fb_credit_at', now)
  write_tally()
  return {count, why}
end

if credit < 1 then return done(0, 'pace') end

-- -- how many, by the room there -------------------------------------------------------------

T = TO
local c = redis.call('HMGET', K('cfg'), 'rate', 'max_payload', 'max_count', 'max_bytes', 'max_age_us')
if not c[1] then return done(0, 'unconfigured') end
local there = redis.call('HMGET', K('gate'), 'draining', 'breaker', 'rate_set', 'pace')
if there[1] then return done(0, 'draining') end
if there[2] or closed(now) then return done(0, 'closed') end
local n = redis.call('HMGET', K('n'), 'accepted', 'moved_in', 'sent', 'expired', 'cancelled',
  'dropped', 'moved_out', 'bytes', 'seq')
for i = 1, 9 do n[i] = tonumber(n[i] or 0) end
local room = tonumber(c[3]) - (n[1] + n[2] - n[3] - n[4] - n[5] - n[6] - n[7])
local room_bytes, max_payload = tonumber(c[4]) - n[8], tonumber(c[2])
local their_max_age_us, seq = tonumber(c[5]), n[9]
if room < 1 or room_bytes < 1 then return done(0, 'full') end
local ahead = math.max(1, math.floor(AHEAD_S * rate_of(c[1], there[3], there[4]))) - ready_here()
if ahead < 1 then return done(0, 'covered') end

-- -- out of the one --------------------------------------------------------------------------

T = FROM
local want, moved, bytes = math.min(most, math.floor(credit), room, ahead), {}, 0

-- A neutral e-mail, by how it begins: {"email": {…}}.
local function is_neutral(m)
  local head = redis.call('GETRANGE', K('m:' .. m.id), m.body_from, m.body_from + 31)
  return string.find(head, '^%s*{%s*"email"%s*:%s*{') ~= nil
end

-- Copied by Redis, not through Lua: a payload is neither read nor logged again. The copy is there
-- before its message leaves, all within this script; one that is there already is another's.
local function depart(id)
  local m = read(id)
  if not m or m.state ~= 'R' or m.attempts > 0 then return end
  if is_request(id) then
    -- Never begun: its members may go, each on its own, when they are looked at.
    leave(m)
    left = left and left + thaw(m, 'R', now) - 1 or left
    return
  end
  if m.tries > 0 then return end
  if is_over(m, now, max_age_us) then
    expire_message(m, now, max_age_us)
    left = left and left - 1
    return
  end
  local size = redis.call('STRLEN', K('m:' .. id)) - m.body_from
  if m.at + their_max_age_us <= now or size > max_payload or bytes + size > room_bytes then return end
  if neutral_only and not is_neutral(m) then return end
  if redis.call('COPY', K('m:' .. id), TO .. ':m:' .. id) == 0 then return end
  leave(m)
  finish(m, 'M', now, m.nonce, nil, name_of(TO))
  bump('moved_out')
  m.size, bytes, left = size, bytes + size, left and left - 1
  moved[#moved + 1] = m
end

-- While the breaker is open one message stays, for somebody must be the probe.
local function enough()
  return #moved >= want or bytes >= BYTES or (left and left <= 1)
end

-- The first places after `from` of each tenant, as {tenant, id, place, ...}; nil for none.
local function next_of(prio, tenant, from, count)
  local got = redis.call('ZRANGEBYSCORE', K('r:' .. prio .. ':' .. tenant), '(' .. from, '+inf',
    'WITHSCORES', 'LIMIT', 0, count)
  return got[1] and {tenant = tenant, places = got, i = 1, seq = tonumber(got[2])} or nil
end

local looked, may_look = 0, most + LOOKED
-- One priority, from where the last call stopped. True: there is no more of it.
local function walk(prio)
  local cursor = 'fb_from' .. prio
  local from, heads = redis.call('HGET', K('gate'), cursor) or '-inf', {}
  for _, tenant in ipairs(redis.call('ZRANGE', K('t:' .. prio), 0, -1)) do
    heads[#heads + 1] = next_of(prio, tenant, from, 1)
  end
  table.sort(heads, function(a, b) return a.seq < b.seq end)
  -- Of thousands of tenants only the first can have their turn in this call.
  for i = #heads, may_look + 2, -1 do heads[i] = nil end
  while heads[1] do
    if enough() then return false end
    if looked >= may_look then
      redis.call('HSET', K('gate'), cursor, from)
      return false
    end
    local head = table.remove(heads, 1)
    local id = head.places[head.i]
    from, looked = head.places[head.i + 1], looked + 1
    head.i = head.i + 2
    if not head.places[head.i] then head = next_of(prio, head.tenant, from, 50) end
    depart(id)
    if head then
      head.seq = tonumber(head.places[head.i + 1])
      local at = 1
      while heads[at] and heads[at].seq < head.seq do at = at + 1 end
      table.insert(heads, at, head)
    end
  end
  redis.call('HDEL', K('gate'), cursor)
  return true
end

local idle = walk(0) and walk(1) and walk(2)
write_tally()

-- -- into the other --------------------------------------------------------------------------

T = TO
local wakes, came = false, {'reason', 'moved from ' .. name_of(FROM)}
for i, m in ipairs(moved) do
  tell('accepted', m.id, came)
  m.nonce, m.flag, m.seq = NO_NONCE, '-', seq + i
  redis.call('SETRANGE', K('m:' .. m.id), 24, struct.pack('>d', m.seq))
  if m.cl > 0 then count_campaign(m, 'moved_in', {m.id}) end
  wakes = to_ready(m) or wakes
  write(m)
  if m.expires > 0 then redis.call('ZADD', K('e'), m.expires, m.id) end
end
bump('seq', #moved)
bump('moved_in', #moved)
bump('bytes', bytes)
write_tally()
if wakes then
  redis.call('LPUSH', K('wake'), '1')
  redis.call('LTRIM', K('wake'), 0, 3)
end
return done(#moved, idle and 'idle' or 'moved')
