-- endpoints: many endpoints behind one destination (docs/endpoints.md). scripts.py puts this text into
-- lib.lua, in the place of its line "--@endpoints".
--
-- A message's lane stands in the place of its tenant: "acme", or "acme/key" where messages of one key
-- are to be sent in their order. What may be taken is kept apart from what waits: T:t:<prio> names the
-- lanes in which something waits, as it does for tenants, and T:el:<prio> those of which something may
-- be taken. So an endpoint that is down costs take and release nothing, however much waits for it.
--   T:ep         hash: endpoint -> JSON {url, in_flight, rate, burst, ordered}; what is left out is as
--                configured for all
--   T:es         hash, of those in trouble only: endpoint -> 'f <failures in a row> <since us>
--                <last at us> <label>', failing; or 'd <at us> <why>', disabled
--   T:eo         hash: endpoint, and lane in order -> how many of its messages are leased
--   T:eb         zset: endpoint, or lane in order -> until when (us) nothing of it is taken
--   T:el:<prio>  zset: lanes of which something may be taken, by turn
--   T:ef:<name>, T:ef:<name>/0, T:ef:<name>/2  sets: '<prio>:<lane>', lanes that only wait for their
--                endpoint: of normal, high and bulk messages
-- A lane in order is written "acme/key", and "acme/" for what has no key; it has one message leased at
-- most, and what is tried again waits at its place, with all behind it.
-- cfg.endpoints is '' (none) or '<in flight> <rate> <burst> <disable after us>'.

-- What scripts know of them; the functions are made only where there are endpoints, for whatever a
-- script makes when it starts costs every message of every destination.
local function make_endpoints(text)
  local BREAK_AT, BREAK_FIRST_US, BREAK_CAP_US = 3, 10000000, 1800000000
  local YEAR_US = 31536000000000
  local E, known = {left = {}}, {}
  local in_flight, rate, burst, disable_us = string.match(text, '^(%d+) (%S+) (%d+) (%d+)$')
  local all = {in_flight = tonumber(in_flight), rate = tonumber(rate), burst = tonumber(burst)}
  disable_us = tonumber(disable_us)

  function E.name_of(lane) return string.match(lane, '^[^/]*') end
  local name_of = E.name_of

  local function is_within(value, least, most)
    return value == nil or type(value) == 'number' and value >= least and value <= most
  end
  local function is_whole(value, most)
    return is_within(value, 1, most) and (value == nil or value % 1 == 0)
  end

  -- What a record says; false where it is not as we write it. A figure that is none would end whatever
  -- script looks at it, half-way, and with it all that goes to the other endpoints.
  local function understood(json)
    local fine, it = pcall(cjson.decode, json or '')
    if not fine or type(it) ~= 'table' or type(it.url) ~= 'string' then return false end
    for field, value in pairs(it) do
      if value == cjson.null and field ~= 'ordered' then it[field] = nil end
    end
    return is_whole(it.in_flight, 10000) and is_within(it.rate, 0, 1000000)
      and is_whole(it.burst, 10000000) and (it.ordered == nil or type(it.ordered) == 'boolean') and it
  end

  -- What is registered of it; false where nothing is, or nothing of ours.
  function E.registered(name)
    local it = known[name]
    if it == nil then
      it = understood(redis.call('HGET', K('ep'), name))
      known[name] = it
    end
    return it
  end

  -- The lane's name in eo and eb where it is to be in order; else nil.
  function E.order_of(lane)
    if string.find(lane, '/', 1, true) then return lane end
    local it = E.registered(lane)
    return it and it.ordered and lane .. '/' or nil
  end

  -- Nothing of it is taken before then.
  function E.bar(member, till)
    redis.call('ZADD', K('eb'), 'GT', string.format('%.0f', till), member)
  end

  local function is_barred(member)
    local till = redis.call('ZSCORE', K('eb'), member)
    return till and tonumber(till) > moment
  end

  -- Whether it is disabled, and all that is known of its trouble.
  function E.trouble_of(name)
    local state = redis.call('HGET', K('es'), name)
    return state and string.byte(state) == 100, state  -- d
  end

  -- How many messages a rate of its own lets through now, and the level; nil where it has none.
  local function room_of(name, it)
    local its = it.rate or all.rate
    if its <= 0 then return nil end
    local most = it.burst or (it.rate and math.max(1, math.ceil(its))) or all.burst
    local b = redis.call('HMGET', K('tb'), name .. ':l', name .. ':a')
    local at = tonumber(b[2])
    local level = math.max(0, at and tonumber(b[1]) or most)
    level = math.min(most, level + math.max(0, moment - (at or moment)) * its / 1000000)
    if level < 1 then E.bar(name, moment + math.min(YEAR_US, math.ceil((1 - level) * 1000000 / its))) end
    return math.max(0, math.floor(level)), level
  end

  function E.draw(lane, count)
    local name = name_of(lane)
    local _, level = room_of(name, E.registered(name))
    if level then redis.call('HSET', K('tb'), name .. ':l', level - count, name .. ':a', moment) end
  end

  -- How many of it are leased. What somebody's hand made no number is none: E.count begins anew.
  local function leased_of(name)
    local held = redis.call('HGET', K('eo'), name)
    return held and #held < 10 and string.find(held, '^%-?%d+$') and tonumber(held) or 0
  end

  -- How many of an endpoint may be leased beside those that are; one at a time while it fails.
  function E.free_of(name)
    local it = E.registered(name)
    if not it or is_barred(name) then return 0 end
    local disabled, state = E.trouble_of(name)
    if disabled then return 0 end
    local most = state and 1 or it.in_flight or all.in_flight
    local free = most - leased_of(name)
    local room = free > 0 and room_of(name, it)
    return math.max(0, room and math.min(room, free) or free)
  end

  -- The same of a lane; and where it is none, whether the lane itself is why.
  function E.lane_free(lane)
    local order = E.order_of(lane)
    if order and (redis.call('HEXISTS', K('eo'), order) == 1 or is_barred(order)) then return 0, true end
    local free = E.free_of(name_of(lane))
    return order and math.min(1, free) or free, false
  end

  function E.aside(name, prio)
    prio = tostring(prio)
    return K('ef:' .. name .. (prio == '1' and '' or '/' .. prio))
  end

  function E.set_aside(prio, lane)
    redis.call('SADD', E.aside(name_of(lane), prio), prio .. ':' .. lane)
  end

  local function open_lane(prio, lane)
    local ring = K('el:' .. prio)
    local low = redis.call('ZRANGE', ring, 0, 0, 'WITHSCORES')[2] or '0'
    return redis.call('ZADD', ring, 'NX', low, lane) == 1
  end

  -- Something waits in it. True where it can be taken, and could not before.
  function E.offer(prio, lane)
    if redis.call('ZSCORE', K('el:' .. prio), lane) then return false end
    local free, own = E.lane_free(lane)
    if free > 0 then return open_lane(prio, lane) end
    if not own then E.set_aside(prio, lane) end
    return false
  end

  function E.offer_all(lane)
    local wakes = false
    for prio = 0, 2 do
      if redis.call('EXISTS', K('r:' .. prio .. ':' .. lane)) == 1 then
        wakes = E.offer(prio, lane) or wakes
      end
    end
    return wakes
  end

  -- As many lanes of an endpoint come back as it may have messages leased, the most urgent first: others
  -- are looked at when one of these is done.
  function E.pull(name)
    local high, normal, bulk = E.aside(name, 0), E.aside(name, 1), E.aside(name, 2)
    if redis.call('EXISTS', high, normal, bulk) == 0 then return false end
    local free, wakes, keys = E.free_of(name), false, {high, normal, bulk}
    -- One time in ten it is bulk's turn, as where a batch is taken.
    if tonumber(string.sub(redis.sha1hex(string.format('%s%.0f', name, moment)), 1, 2), 16) < 26 then
      keys = {bulk, high, normal}
    end
    for _, key in ipairs(keys) do
      while free > 0 do
        local it = redis.call('SPOP', key)
        if not it then break end
        local prio, lane = string.sub(it, 1, 1), string.sub(it, 3)
        if redis.call('EXISTS', K('r:' .. prio .. ':' .. lane)) == 1 and E.lane_free(lane) > 0 then
          wakes = open_lane(prio, lane) or wakes
          free = free - 1
        end
      end
    end
    return wakes
  end

  -- One more of it is leased, or one less.
  function E.count(lane, by)
    local order, name = E.order_of(lane), name_of(lane)
    for _, field in ipairs(order and {name, order} or {name}) do
      -- pcall: it may be no number (leased_of).
      local left = redis.pcall('HINCRBY', K('eo'), field, by)
      if type(left) ~= 'number' then
        redis.call('HSET', K('eo'), field, by)
        left = by
      end
      if left < 1 then redis.call('HDEL', K('eo'), field) end
    end
    if by < 0 then E.left[lane] = true end
  end

  -- How many are leased is counted anew, by what batches hold. `read_message` is lib.lua's.
  function E.recount(read_message)
    for _, field in ipairs(redis.call('HKEYS', K('eo'))) do
      E.left[string.match(field, '^(.-)/?$')] = true
    end
    redis.call('DEL', K('eo'))
    for _, nonce in ipairs(redis.call('ZRANGE', K('batches'), 0, -1)) do
      for _, id in ipairs(redis.call('SMEMBERS', K('b:' .. nonce))) do
        local m = read_message(id)
        if m and m.tenant ~= '' then E.count(m.tenant, 1) end
      end
    end
  end

  -- At the end of a script, when all is known of them: lanes of which a message was leased and is no
  -- more, and endpoints of which something changed.
  function E.heed_left()
    local wakes, seen = false, {}
    for lane in pairs(E.left) do
      local name = name_of(lane)
      if lane ~= name or E.order_of(lane) then wakes = E.offer_all(lane) or wakes end
      if not seen[name] then wakes = E.pull(name) or wakes end
      seen[name] = true
    end
    if wakes then
      redis.call('LPUSH', K('wake'), '1')
      redis.call('LTRIM', K('wake'), 0, 3)
    end
  end

  function E.disable(name, why)
    why = string.sub(why, 1, 200)
    redis.call('HSET', K('es'), name, 'd ' .. string.format('%.0f', moment) .. ' ' .. why)
    redis.call('ZREM', K('eb'), name)
    bump('endpoints_disabled')
    tell('endpoint_disabled', name, {'reason', why})
  end

  -- A disabled one stays so, whatever becomes of what was under way.
  function E.is_well(name)
    local disabled, state = E.trouble_of(name)
    if disabled or not state then return end
    redis.call('HDEL', K('es'), name)
    redis.call('ZREM', K('eb'), name)
    E.left[name] = true
    local fails = tonumber(string.match(state, '^f (%d+)'))
    if fails and fails >= BREAK_AT then tell('endpoint_recovered', name) end
  end

  -- One failure more in a row. Requests that were under way together when it failed are one failure.
  -- Returns how many there are, and whether this one counts; and since when.
  local function note_failure(name, state, begun, label)
    local fails, since, last = string.match(state or '', '^f (%d+) (%d+) (%d+)')
    fails, since, last = tonumber(fails or 0), tonumber(since or moment), tonumber(last or 0)
    local together = begun <= last
    if begun == 0 then together = moment - last < 1000000 end
    if together then return fails, false, since end
    fails = fails + 1
    redis.call('HSET', K('es'), name, string.format('f %d %.0f %.0f ', fails, since, moment)
      .. string.sub(label, 1, 60))
    if fails == BREAK_AT then
      bump('endpoints_failing')
      tell('endpoint_failing', name, {'reason', string.sub(label, 1, 60)})
    end
    return fails, true, since
  end

  -- An endpoint's request failed, or was told to wait (`wait_us`, 0 where no time was named, nil where
  -- none was asked for). `first_us`, `cap_us`: of the doubling of such waits. Returns how many failures
  -- there are in a row.
  function E.failed(lane, begun, label, wait_us, first_us, cap_us)
    local name = name_of(lane)
    local disabled, state = E.trouble_of(name)
    if disabled then return BREAK_AT end
    local fails, counts, since = note_failure(name, state, begun, label)
    if not counts then return fails end
    if wait_us == 0 then wait_us = math.min(cap_us, first_us * 2 ^ math.min(fails - 1, 30)) end
    if fails >= BREAK_AT then
      if moment - since >= disable_us then
        E.disable(name, string.format('has failed for %.1f hours, the last: %s', (moment - since) / 3.6e9, label))
        return fails
      end
      -- Spread by a quarter, so that those which failed together are not probed together.
      local spread = 1 + tonumber(string.sub(redis.sha1hex(name .. fails), 1, 4), 16) / 262140
      local pause = math.min(BREAK_CAP_US, BREAK_FIRST_US * 2 ^ math.min(fails - BREAK_AT, 20))
      wait_us = math.max(wait_us or 0, math.floor(spread * pause))
    end
    if wait_us then E.bar(name, moment + wait_us) end
    return fails
  end

  return E
end

-- nil: not looked at yet; false: there are none.
local lanes
local function lanes_as(text) lanes = text and text ~= '' and make_endpoints(text) or false end

-- What is to be asked about the lane of a message; false where its tenant is none.
local function lanes_of(tenant)
  if tenant == '' then return false end
  if lanes == nil then lanes_as(redis.call('HGET', K('cfg'), 'endpoints')) end
  return lanes
end
