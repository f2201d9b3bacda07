#!lua name=paceline
--@lib
-- enqueue: new -> ready, or scheduled when it is not due yet. A function, so that any language
-- can call it: FCALL paceline_enqueue 1 '{destination}' '<payload>' '<options as JSON>'
-- And for many at once, FCALL paceline_enqueue_many 1 '{destination}' payload options payload options
-- ...: each is taken or refused by itself, and there is one reply for each. Redis reads a pipeline of
-- single calls by 16 KiB, and under appendfsync always syncs after each piece; one call is one sync.
--
-- KEYS  {destination}
-- ARGV  payload bytes (kept as they are, never parsed here: cjson turns [] into {} and loses
--       integers over 2^53), options as a JSON object, [now_us, for tests]
--       options: id (required: the caller makes it before its first try, so that a repeated call
--       cannot enqueue twice), priority high|normal|bulk, tenant, campaign,
--       not_before and expires (unix seconds), delay_s and ttl_s (seconds from now)
-- Returns "new", or "already" (same id, same payload: a repeated call).
-- Errors  PLINVALID, PLTOOBIG, PLUNKNOWN, PLCONFLICT, PLFULL, PLDRAINING: then nothing was written.
local VERSION = 2
local PRIORITIES = {high = '0', normal = '1', bulk = '2'}
local OPTIONS = {id = 'string', priority = 'string', tenant = 'string', campaign = 'string',
  not_before = 'number', expires = 'number', delay_s = 'number', ttl_s = 'number'}

local function refuse(code, text) return redis.error_reply(code .. ' ' .. text) end

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
        .. ': unknown; known are id, priority, tenant, campaign, not_before, expires, delay_s, ttl_s'
    elseif value == cjson.null then o[name] = nil
    elseif type(value) ~= want then return nil, 'options.' .. name .. ': must be a ' .. want
    elseif want == 'number' and (value ~= value or value < 0 or value > 1e11) then
      return nil, 'options.' .. name .. ': must be seconds from 0 to 1e11'
    end
  end
  if not o.id then
    return nil, 'options.id: missing; make an id of 1 to 128 characters of A-Z a-z 0-9 . _ - '
      .. 'and repeat it when you repeat the call'
  end
  if #o.id > 128 or not o.id:match('^[%w._-]+$') then
    return nil, 'options.id: must be 1 to 128 characters of A-Z a-z 0-9 . _ -'
  end
  for _, name in ipairs({'tenant', 'campaign'}) do
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

-- What all messages of one call share, read once: configuration, counters, whether it drains.
local COUNTERS = {'accepted', 'moved_in', 'sent', 'expired', 'cancelled', 'dropped', 'moved_out',
  'bytes', 'seq'}
local function open_intake(tag)
  T = tag
  local cfg = redis.call('HMGET', K('cfg'), 'max_payload', 'max_count', 'max_bytes')
  if not cfg[1] then return nil end
  local n = redis.call('HMGET', K('n'), unpack(COUNTERS))
  for i = 1, #COUNTERS do n[i] = tonumber(n[i] or 0) end
  return {max_payload = tonumber(cfg[1]), max_count = tonumber(cfg[2]), max_bytes = tonumber(cfg[3]),
    live = n[1] + n[2] - n[3] - n[4] - n[5] - n[6] - n[7], bytes = n[8], seq = n[9],
    draining = redis.call('HGET', K('gate'), 'draining'), ringed = {}}
end

local function put_ready(intake, m)
  local lane = m.prio .. ':' .. m.tenant
  if intake.ringed[lane] then
    m.state = 'R'
    redis.call('ZADD', K('r:' .. lane), m.seq, m.id)
  elseif to_ready(m) then
    -- Wakes a sleeping scheduler; at most a few tokens stand there, whoever reads them.
    redis.call('LPUSH', K('wake'), '1')
    redis.call('LTRIM', K('wake'), 0, 3)
  end
  intake.ringed[lane] = true
end

local function enter(intake, payload, options, now)
  local o, problem = read_options(options)
  if not o then return refuse('PLINVALID', problem) end
  if #payload == 0 then return refuse('PLINVALID', 'payload: empty') end
  if #payload > intake.max_payload then
    return refuse('PLTOOBIG', 'payload: ' .. #payload .. ' bytes, over the '
      .. string.format('%.0f', intake.max_payload) .. ' that max_payload_bytes of the destination allows')
  end

  local name = K('m:' .. o.id)
  if redis.call('EXISTS', name) == 1 then return answer_known(o.id, name, payload) end

  local expires = o.expires and math.floor(o.expires * 1e6)
    or (o.ttl_s and now + math.floor(o.ttl_s * 1e6)) or 0
  if (o.expires or o.ttl_s) and expires <= now then
    return refuse('PLINVALID', 'options.' .. (o.expires and 'expires' or 'ttl_s') .. ': already past')
  end
  local due = o.not_before and math.floor(o.not_before * 1e6)
    or (o.delay_s and now + math.floor(o.delay_s * 1e6)) or 0
  if expires > 0 and due >= expires then
    return refuse('PLINVALID', 'options.expires: not after not_before')
  end
  if intake.draining then
    return refuse('PLDRAINING', 'destination ' .. string.sub(T, 2, -2)
      .. ' is draining and takes nothing new; wait, or have an operator resume it')
  end
  if intake.live >= intake.max_count then
    return refuse('PLFULL', 'outbox: ' .. intake.live .. ' messages wait, max_messages is '
      .. string.format('%.0f', intake.max_count) .. '; try again when some are sent')
  end
  if intake.bytes + #payload > intake.max_bytes then
    return refuse('PLFULL', 'outbox: ' .. intake.bytes .. ' bytes wait, max_bytes is '
      .. string.format('%.0f', intake.max_bytes) .. '; try again when some are sent')
  end

  local tenant, campaign = o.tenant or '', o.campaign or ''
  intake.seq = intake.seq + 1
  bump('seq')
  local m = {id = o.id, prio = o.priority, tenant = tenant, seq = intake.seq}
  local later = due > now
  redis.call('SET', name, struct.pack(HEADER, 'P', later and 'W' or 'R', 0, 0, NO_NONCE, m.prio, '-',
    m.seq, now, expires, due, #tenant, #campaign, 0) .. tenant .. campaign .. payload)
  if later then redis.call('ZADD', K('s'), due, o.id) else put_ready(intake, m) end
  if expires > 0 then redis.call('ZADD', K('e'), expires, o.id) end
  intake.live, intake.bytes = intake.live + 1, intake.bytes + #payload
  bump('accepted')
  bump('bytes', #payload)
  return 'new'
end

-- One reply a message. What stops one half-way (a key of ours that somebody overwrote) is its own
-- error: the others' counters are written all the same.
local function enqueue_all(keys, args, count)
  if #keys ~= 1 or not keys[1]:match('^{[a-z0-9][a-z0-9_-]*}$') then
    return nil, refuse('PLINVALID', "key: must be one key, the destination in braces, as '{maxmd}'")
  end
  local now, intake, replies = clock(args[2 * count + 1]), open_intake(keys[1]), {}
  if not intake then
    return nil, refuse('PLUNKNOWN', 'destination ' .. string.sub(keys[1], 2, -2)
      .. ' is not configured here; start a daemon whose configuration has it, or mend the name')
  end
  for i = 1, count do
    local fine, reply = pcall(enter, intake, args[2 * i - 1], args[2 * i], now)
    if not fine and type(reply) ~= 'table' then reply = redis.error_reply('ERR ' .. tostring(reply)) end
    replies[i] = reply
  end
  write_tally()
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

redis.register_function('paceline_enqueue', enqueue)
redis.register_function('paceline_enqueue_many', enqueue_many)
redis.register_function{function_name = 'paceline_version', flags = {'no-writes'},
  callback = function() return VERSION end}
