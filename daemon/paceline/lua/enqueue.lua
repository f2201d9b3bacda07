#!lua name=paceline
--@lib
-- enqueue: new -> ready, or scheduled when it is not due yet. A function, so that any language
-- can call it: FCALL paceline_enqueue 1 '{destination}' '<payload>' '<options as JSON>'
-- And for many at once, each taken or refused by itself:
--   FCALL paceline_enqueue_many 1 '{destination}' payload options payload options ...
--     one reply for each;
--   FCALL paceline_enqueue_bulk 1 '{destination}' '' options id payload id payload ...
--     options without an id, which hold for what follows, until others (where an id is due, what
--     begins with a brace is options); none before the first means none. Replies tell of those that
--     are not new only: its number in the call, from 0, and its reply, and so on.
-- Redis reads a pipeline of single calls by 16 KiB, and under appendfsync always syncs after each
-- piece; one call is one sync. The bulk form reads options once, and writes places together: a
-- message costs Redis about half.
--
-- KEYS  {destination}
-- ARGV  payload bytes (kept as they are, never parsed here: cjson turns [] into {} and loses
--       integers over 2^53), options as a JSON object, [now_us, for tests]
--       options: id (required: the caller makes it before its first try, so that a repeated call
--       cannot enqueue twice), priority high|normal|bulk, tenant, campaign, endpoint and key (of a
--       destination with many endpoints: which one, and what is to be sent in order),
--       not_before and expires (unix seconds), delay_s and ttl_s (seconds from now)
--       bulk: now_us, for tests, or '', and then as above
-- Returns "new", or "already" (same id, same payload: a repeated call).
-- Errors  PLINVALID, PLTOOBIG, PLUNKNOWN, PLCONFLICT, PLFULL, PLDRAINING, PLDISABLED: then nothing was
--         written.
local VERSION = 7
local PRIORITIES = {high = '0', normal = '1', bulk = '2'}
local OPTIONS = {id = 'string', priority = 'string', tenant = 'string', campaign = 'string',
  endpoint = 'string', key = 'string',
  not_before = 'number', expires = 'number', delay_s = 'number', ttl_s = 'number'}

local function refuse(code, text) return redis.error_reply(code .. ' ' .. text) end

local function unknown_destination(tag)
  return refuse('PLUNKNOWN', 'destination ' .. string.sub(tag, 2, -2)
    .. ' is not configured here; start a daemon whose configuration has it, or mend the name')
end

local function wrong_id(id)
  if not id then
    return 'options.id: missing; make an id of 1 to 128 characters of A-Z a-z 0-9 . _ - '
      .. 'and repeat it when you repeat the call'
  end
  if #id > 128 or not id:match('^[%w._-]+$') then
    return 'options.id: must be 1 to 128 characters of A-Z a-z 0-9 . _ -'
  end
end

-- The options as a table, the id in it unchecked; or nil and what is wrong with them.
local function read_options(json)
  if #json > 8192 then return nil, 'options: over 8192 bytes' end
  local fine, o = pcall(cjson.decode, json)
  if not fine or type(o) ~= 'table' or (json:match('^%s*(.)') ~= '{') then
    return nil, 'options: not a JSON object'
  end
  for name, value in pairs(o) do
    local want = OPTIONS[name]
    if not want then
      return nil, 'options.' .. string.sub(tostring(name), 1, 40):gsub('[^%w_.-]', '?')
        .. ': unknown; known are id, priority, tenant, campaign, endpoint, key, not_before, expires, delay_s, ttl_s'
    elseif value == cjson.null then o[name] = nil
    elseif type(value) ~= want then return nil, 'options.' .. name .. ': must be a ' .. want
    elseif want == 'number' and (value ~= value or value < 0 or value > 1e11) then
      return nil, 'options.' .. name .. ': must be seconds from 0 to 1e11'
    end
  end
  for _, name in ipairs({'tenant', 'campaign', 'endpoint', 'key'}) do
    local value = o[name]
    if value and (#value > 64 or not value:match('^[%w._-]+$')) then
      return nil, 'options.' .. name .. ': must be 1 to 64 characters of A-Z a-z 0-9 . _ -'
    end
  end
  if o.not_before and o.delay_s then
    return nil, 'options.delay_s: contradicts options.not_before; give one'
  end
  if o.expires and o.ttl_s then return nil, 'options.ttl_s: contradicts options.expires; give one' end
  o.priority = PRIORITIES[o.priority or 'normal']
  if not o.priority then return nil, 'options.priority: must be high, normal or bulk' end
  return o
end

-- What an id that is known already answers.
local function answer_known(id, name, payload)
  local m = read(id)
  local same
  if m then
    same = redis.call('STRLEN', name) - m.body_from == #payload
      and redis.call('GETRANGE', name, m.body_from, -1) == payload
  else
    local record = redis.pcall('GET', name)
    same = type(record) == 'string' and string.sub(record, RECORD_HEAD - 19, RECORD_HEAD) == sha1_raw(redis.sha1hex(payload))
  end
  if same then return 'already' end
  return refuse('PLCONFLICT', 'options.id: ' .. id
    .. ' was used before with another payload; use a new id for a new message')
end

-- What all messages of one call share, read once: configuration, counters, what keeps intake shut.
local COUNTERS = {'accepted', 'moved_in', 'sent', 'expired', 'cancelled', 'dropped', 'moved_out',
  'bytes', 'seq'}

-- Why nothing new is taken, as a daemon found it last (press.lua); nil where nothing speaks against it.
local function shut_by(full)
  local until_us, retry_s, why = string.match(full or '', '^(%d+) (%d+) (.*)$')
  if until_us and tonumber(until_us) > moment then
    return why .. '; try again in about ' .. retry_s .. ' s'
  end
end

-- The limits of all destinations together, and what the others hold of it.
local function limits_in_all(text)
  local count, bytes, others, other_bytes = string.match(text or '', '^(%d+) (%d+) (-?%d+) (-?%d+)$')
  if not count then return nil end
  return {count = tonumber(count), bytes = tonumber(bytes), others = tonumber(others),
    other_bytes = tonumber(other_bytes)}
end

local function open_intake(tag)
  T, campaigns = tag, {}
  local cfg = redis.call('HMGET', K('cfg'), 'max_payload', 'max_count', 'max_bytes', 'events', 'endpoints')
  if not cfg[1] then return nil end
  events_as(cfg[4])
  lanes_as(cfg[5])
  local n = redis.call('HMGET', K('n'), unpack(COUNTERS))
  for i = 1, #COUNTERS do n[i] = tonumber(n[i]) or 0 end
  local gate = redis.call('HMGET', K('gate'), 'draining', 'full', 'all')
  return {max_payload = tonumber(cfg[1]), max_count = tonumber(cfg[2]), max_bytes = tonumber(cfg[3]),
    live = n[1] + n[2] - n[3] - n[4] - n[5] - n[6] - n[7], bytes = n[8], seq = n[9],
    draining = gate[1], full = shut_by(gate[2]), all = limits_in_all(gate[3]), prefix = K('m:'), accepted = 0, added = 0,
    ways = {}, places = {}, order = {}, expiring = {}, tells = wants('accepted')}
end

-- The lane of an endpoint, which stands in the place of the tenant; or nil, and why it gets nothing.
local function lane_for(o)
  if not lanes then
    if o.endpoint or o.key then
      return nil, 'PLINVALID', 'options.' .. (o.endpoint and 'endpoint' or 'key')
        .. ': this destination has no endpoints; leave it out'
    end
    return o.tenant or ''
  end
  local name = o.endpoint
  if o.tenant then
    return nil, 'PLINVALID', 'options.tenant: this destination is shared between its endpoints; leave it out'
  elseif not name then
    return nil, 'PLINVALID', 'options.endpoint: missing; this destination has many, name one of them'
  elseif not lanes.registered(name) then
    return nil, 'PLINVALID', 'options.endpoint: ' .. name
      .. ' is not registered here; mend the name, or have an operator add it'
  end
  local disabled, state = lanes.trouble_of(name)
  if disabled then
    return nil, 'PLDISABLED', 'endpoint ' .. name .. ' is disabled: ' .. (string.match(state, '^d %d+ (.*)$') or 'nobody knows why')
  end
  return o.key and name .. '/' .. o.key or name
end

-- What messages of equal options share: why none of them may enter, or the two parts of their header
-- around the place, and the container that they go to.
local function open_way(intake, o)
  local now = intake.now
  local expires = o.expires and math.floor(o.expires * 1e6)
    or (o.ttl_s and now + math.floor(o.ttl_s * 1e6)) or 0
  if (o.expires or o.ttl_s) and expires <= now then
    return {refused = {'PLINVALID', 'options.' .. (o.expires and 'expires' or 'ttl_s') .. ': already past'}}
  end
  local due = o.not_before and math.floor(o.not_before * 1e6)
    or (o.delay_s and now + math.floor(o.delay_s * 1e6)) or 0
  if expires > 0 and due >= expires then
    return {refused = {'PLINVALID', 'options.expires: not after not_before'}}
  end
  local tenant, code, text = lane_for(o)
  if not tenant then return {refused = {code, text}} end
  local later, score, campaign, its = due > now, due, o.campaign or '', nil
  if campaign ~= '' then
    redis.call('SCARD', K('c:' .. campaign))
    its = in_campaign(campaign).came
    if redis.call('HEXISTS', K('cp'), campaign) == 1 then later, score = true, FAR end
  end
  local lane = later and '' or o.priority .. ':' .. tenant
  local place = later and K('s') or K('r:' .. lane)
  -- A key of ours that somebody overwrote stops its messages before anything of them is written.
  redis.call('ZCARD', place)
  if not later then redis.call('ZCARD', K('t:' .. o.priority)) end
  if expires > 0 then redis.call('ZCARD', K('e')) end
  local list = intake.places[place]
  if not list then
    list = {prio = o.priority, tenant = tenant, later = later}
    intake.places[place] = list
    intake.order[#intake.order + 1] = place
  end
  return {list = list, score = score, expires = expires, its = its,
    head = struct.pack('>c1c1HHc16c1c1', 'P', later and 'W' or 'R', 0, 0, NO_NONCE, o.priority, '-'),
    tail = struct.pack('>dddBBH', now, expires, due, #tenant, #campaign, 0) .. tenant .. campaign}
end

local function too_many(where, held, what, key, most)
  return 'PLFULL', 'outbox: ' .. string.format('%.0f ', held) .. what .. ' wait' .. where .. ', ' .. key
    .. ' is ' .. string.format('%.0f', most) .. '; try again when some are sent, in about 5 s'
end

-- Why no message of `size` bytes enters that is not there already.
local function refusal(intake, way, size)
  if way.refused then return way.refused[1], way.refused[2] end
  if intake.draining then
    return 'PLDRAINING', 'destination ' .. string.sub(T, 2, -2)
      .. ' is draining and takes nothing new; wait, or have an operator resume it'
  end
  if intake.full then return 'PLFULL', 'redis: ' .. intake.full end
  if intake.live >= intake.max_count then
    return too_many('', intake.live, 'messages', 'max_messages', intake.max_count)
  end
  if intake.bytes + size > intake.max_bytes then
    return too_many('', intake.bytes, 'bytes', 'max_bytes', intake.max_bytes)
  end
  local all = intake.all
  if not all then return end
  local everywhere = ' in all destinations'
  if all.count > 0 and intake.live + all.others >= all.count then
    return too_many(everywhere, intake.live + all.others, 'messages', 'max_messages of [redis]', all.count)
  end
  if all.bytes > 0 and intake.bytes + all.other_bytes + size > all.bytes then
    return too_many(everywhere, intake.bytes + all.other_bytes, 'bytes', 'max_bytes of [redis]', all.bytes)
  end
end

local function enter(intake, way, id, payload)
  local size = #payload
  if size == 0 then return refuse('PLINVALID', 'payload: empty') end
  if size > intake.max_payload then
    return refuse('PLTOOBIG', 'payload: ' .. size .. ' bytes, over the '
      .. string.format('%.0f', intake.max_payload) .. ' that max_payload_bytes of the destination allows')
  end
  local name = intake.prefix .. id
  local code, text = refusal(intake, way, size)
  if code then
    if redis.call('EXISTS', name) == 1 then return answer_known(id, name, payload) end
    return refuse(code, text)
  end
  local seq, list = intake.seq + 1, way.list
  if not redis.call('SET', name, way.head .. struct.pack('>d', seq) .. way.tail .. payload, 'NX') then
    return answer_known(id, name, payload)
  end
  intake.seq, intake.live, intake.bytes = seq, intake.live + 1, intake.bytes + size
  intake.accepted, intake.added = intake.accepted + 1, intake.added + size
  if intake.tells then put_down('accepted', id) end
  list[#list + 1] = list.later and way.score or seq
  list[#list + 1] = id
  if way.its then way.its[#way.its + 1] = id end
  if way.expires > 0 then
    intake.expiring[#intake.expiring + 1] = way.expires
    intake.expiring[#intake.expiring + 1] = id
  end
  return 'new'
end

-- Lua's unpack has a limit.
local function add_all(name, list, first)
  for from = first, #list, 2000 do
    redis.call('ZADD', name, unpack(list, from, math.min(from + 1999, #list)))
  end
end

-- pcall: the messages are written. A counter that somebody else's hand has brought to its end stays.
local function count_up(field, by)
  redis.pcall('HINCRBY', K('n'), field, string.format('%.0f', by))
end

-- Writes the places of all that entered, and the counters.
local function close_intake(intake)
  for _, place in ipairs(intake.order) do
    local list = intake.places[place]
    if #list > 0 then
      if not list.later
        and to_ready({id = list[2], seq = list[1], prio = list.prio, tenant = list.tenant, cl = 0}) then
        -- Wakes a sleeping scheduler; at most a few tokens stand there, whoever reads them. pcall: the
        -- messages are written, and nothing may keep the counters from being written too.
        redis.pcall('LPUSH', K('wake'), '1')
        redis.pcall('LTRIM', K('wake'), 0, 3)
      end
      add_all(place, list, list.later and 1 or 3)
    end
  end
  add_all(K('e'), intake.expiring, 1)
  for _, it in pairs(campaigns) do
    if #it.came > 0 then it.n.accepted = #it.came end
  end
  -- One by one, and not as add_up would: a producer's user may add to counters, but not set them.
  if intake.accepted > 0 then
    count_up('seq', intake.accepted)
    count_up('accepted', intake.accepted)
    count_up('bytes', intake.added)
  end
  write_tally()
end

-- What stops one half-way is its own error: the others' places and counters are written all the same.
local function guarded(...)
  local fine, reply = pcall(...)
  if not fine and type(reply) ~= 'table' then reply = redis.error_reply('ERR ' .. tostring(reply)) end
  return reply, not fine
end

-- The way for options as JSON: read once in a call, however often they are given.
local function way_of(intake, json)
  local way = intake.ways[json]
  if not way then
    local o, problem = read_options(json)
    if not o then way = {invalid = problem}
    else
      local stuck
      way, stuck = guarded(open_way, intake, o)
      if stuck then way = {stuck = way} end
      way.id = o.id
    end
    intake.ways[json] = way
  end
  return way
end

local function enter_by(intake, way, id, payload)
  local problem = way.invalid or wrong_id(id)
  if problem then return refuse('PLINVALID', problem) end
  if way.stuck then return way.stuck end
  return (guarded(enter, intake, way, id, payload))
end

local function begin_intake(keys, now_us)
  if #keys ~= 1 or not keys[1]:match('^{[a-z0-9][a-z0-9_-]*}$') then
    return nil, refuse('PLINVALID', "key: must be one key, the destination in braces, as '{maxmd}'")
  end
  -- A payload whose options were forgotten stands where tests give the time.
  if now_us and now_us ~= '' and not (#now_us < 18 and now_us:match('^%d+$')) then
    return nil, refuse('PLINVALID', 'arguments: must be a payload and its options as JSON, for each message; one is left over')
  end
  local now, intake = clock(now_us), open_intake(keys[1])
  if not intake then return nil, unknown_destination(keys[1]) end
  intake.now = now
  return intake
end

-- One reply a message.
local function enqueue_all(keys, args, count)
  local intake, problem = begin_intake(keys, args[2 * count + 1])
  if not intake then return nil, problem end
  local replies = {}
  for i = 1, count do
    local way = way_of(intake, args[2 * i])
    replies[i] = enter_by(intake, way, way.id, args[2 * i - 1])
  end
  close_intake(intake)
  return replies
end

local function enqueue(keys, args)
  if #args < 2 or #args > 3 then
    return refuse('PLINVALID', 'arguments: must be the payload and the options as JSON')
  end
  local replies, problem = enqueue_all(keys, args, 1)
  return replies and replies[1] or problem
end

local function enqueue_many(keys, args)
  if #args < 2 then
    return refuse('PLINVALID', 'arguments: must be a payload and its options as JSON, for each message')
  end
  local replies, problem = enqueue_all(keys, args, math.floor(#args / 2))
  return replies or problem
end

local function enqueue_bulk(keys, args)
  if #args < 3 or #args[1] > 17 or not args[1]:match('^%d*$') then
    return refuse('PLINVALID', "arguments: must be '', options as JSON, and an id and a payload for each message")
  end
  local intake, problem = begin_intake(keys, args[1])
  if not intake then return problem end
  local replies, way, number, i = {}, nil, 0, 2
  while i <= #args do
    local id = args[i]
    if string.byte(id) == 123 then  -- a brace
      way, i = way_of(intake, id), i + 1
      if way.id then way = {invalid = 'options.id: belongs before each payload here'} end
    else
      way = way or way_of(intake, '{}')
      local payload = args[i + 1]
      local reply = payload and enter_by(intake, way, id, payload) or refuse('PLINVALID', 'payload: missing')
      if reply ~= 'new' then
        replies[#replies + 1] = number
        replies[#replies + 1] = reply
      end
      number, i = number + 1, i + 2
    end
  end
  close_intake(intake)
  return replies
end

--@wish

redis.register_function('paceline_enqueue', enqueue)
redis.register_function('paceline_enqueue_many', enqueue_many)
redis.register_function('paceline_enqueue_bulk', enqueue_bulk)
redis.register_function{function_name = 'paceline_version', flags = {'no-writes'},
  callback = function() return VERSION end}
