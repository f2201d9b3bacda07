-- Shared words of every transition: key names, the message header, the containers.
-- scripts.py puts this text between a script's first line and its body; nothing else is composed.
--
-- T is KEYS[1], the hash tag "{destination}". Every key starts with it, so one destination lives
-- in one slot, and every name is composed here from T alone (docs/keys.md lists them).
--
-- A message is ONE string, T:m:<id> = header (60 bytes) .. tenant .. campaign .. payload bytes.
-- One key a message keeps a queued kilobyte cheap; the header changes in place (SETRANGE), so a
-- state change neither copies the payload nor logs it again.
--   offset 0  c1  'P'
--          1  c1  state: R ready, W scheduled, L leased, B leased and begun, D dead, K parked. One of
--                 a destination that merges says R too while it is held or in a request (locate)
--          2  H   attempts begun (requests that may have reached the wire)
--          4  H   tries charged
--          6  c16 nonce of the batch that holds it, or that held it last (the fencing token)
--         22  c1  priority: 0 high, 1 normal, 2 bulk
--         23  c1  flag: '-', 'c' cancel asked while begun, 'o' its last try met an outage
--         24  d   seq: its place in the queue
--         32  d   accepted at, us      40 d expires at, us (0 never)     48 d due at, us
--         56  B B H  lengths of tenant, campaign, and a reserved part (of a merged request its campaign)
-- What stays after the end is a record in the same key, with an expiry:
--   'p', state (S sent, C cancelled, X expired, T dropped, M moved), nonce c16, time d, SHA-1 of the
--   payload c20, provider's id.
-- A merged request is kept in the same form, under an id that begins with '+' (merged.lua), and goes
-- through the same containers; so whatever counts messages asks `finish` how many ended.
local HEADER, HEADER_LEN, RECORD_HEAD = '>c1c1HHc16c1c1ddddBBH', 60, 46
local NO_NONCE = '----------------'
local T

local function K(name) return T .. ':' .. name end

-- Redis TIME in microseconds unless a test injects it: whole seconds are too coarse for 100/s.
local moment
local function clock(injected)
  if injected and injected ~= '' then
    moment = tonumber(injected)
  else
    local t = redis.call('TIME')
    moment = t[1] * 1000000 + t[2]
  end
  return moment
end

local tally, touched, keep_ms = {}, {}, nil
local function bump(field, by) tally[field] = (tally[field] or 0) + (by or 1) end
-- Adds whole numbers to the fields of a hash. Several at once in two calls: each call costs more
-- than its work. As text, for a large number would be written with an exponent. What is no number, or
-- past the largest, begins anew: somebody wrote it who may, and it must not stop a script half-way.
local function add_up(name, sums)
  local fields = {}
  for field, by in pairs(sums) do
    if by ~= 0 then fields[#fields + 1] = field end
  end
  if #fields < 3 then
    for _, field in ipairs(fields) do
      local by = string.format('%.0f', sums[field])
      local reply = redis.pcall('HINCRBY', K(name), field, by)
      if type(reply) == 'table' and reply.err then redis.pcall('HSET', K(name), field, by) end
    end
    return
  end
  local old, pairs_now = redis.call('HMGET', K(name), unpack(fields)), {}
  for i, field in ipairs(fields) do
    pairs_now[2 * i - 1] = field
    pairs_now[2 * i] = string.format('%.0f', (tonumber(old[i]) or 0) + sums[field])
  end
  redis.call('HSET', K(name), unpack(pairs_now))
end

--@events

--@campaigns

--@endpoints

-- At the end of every script: events, counters, and batches that have become empty go.
local function write_tally()
  if lanes then lanes.heed_left() end
  if wanted and #told > 0 then write_events() end
  add_up('n', tally)
  if next(campaigns) then write_campaigns() end
  for nonce in pairs(touched) do
    if redis.call('EXISTS', K('b:' .. nonce)) == 0 then
      redis.call('DEL', K('bm:' .. nonce))
      redis.call('ZREM', K('batches'), nonce)
    end
  end
  tally, touched, keep_ms, wanted, about, lanes = {}, {}, nil, nil, nil, nil
  campaigns, some_paused = {}, nil
end

-- A place or a moment: no header of ours has another, and what is no number no zset takes.
local PLACES = {['0'] = true, ['1'] = true, ['2'] = true}
-- Options allow 1e11 s, also from now on: 1e17 us and a little.
local function fits(number) return number >= 0 and number < 2e17 end

-- The header as a table, or nil where there is no live message of that id. Whoever may enqueue may
-- write anything under that name (docs/threat-model.md), and it must not stop a script half-way: so
-- pcall, for a key of another type, and what no header of ours says is none.
local function read(id)
  local h = redis.pcall('GETRANGE', K('m:' .. id), 0, HEADER_LEN - 1)
  if type(h) ~= 'string' or #h < HEADER_LEN or string.sub(h, 1, 1) ~= 'P' then return nil end
  local m = {id = id}
  local _, tl, cl, xl
  _, m.state, m.attempts, m.tries, m.nonce, m.prio, m.flag, m.seq, m.at, m.expires, m.due,
    tl, cl, xl = struct.unpack(HEADER, h)
  if not (fits(m.seq) and fits(m.at) and fits(m.expires) and fits(m.due) and PLACES[m.prio]) then return nil end
  -- Nor is it a merged request because it is named like one: only who freezes one writes it there.
  if string.byte(id) == 43 and redis.call('HEXISTS', K('q'), id) == 0 then return nil end
  m.tenant, m.cl, m.body_from = '', cl, HEADER_LEN + tl + cl + xl
  -- A merged request's campaign is its reserved part.
  if cl > 0 and string.byte(id) == 43 then m.cl = xl end
  if tl > 0 then
    m.tenant = redis.call('GETRANGE', K('m:' .. id), HEADER_LEN, HEADER_LEN + tl - 1)
  end
  return m
end

-- Writes what a transition may change: state, attempts, tries, nonce, priority, flag.
local function write(m)
  redis.call('SETRANGE', K('m:' .. m.id), 1,
    struct.pack('>c1HHc16c1c1', m.state, m.attempts, m.tries, m.nonce, m.prio, m.flag))
end

-- Into ready, at its place by seq. True when its tenant was idle (the scheduler may be asleep).
-- A tenant that becomes active joins at the lowest pass: it neither waits nor owes for its absence.
-- One of a paused campaign waits with it instead, wherever it comes from.
local function to_ready(m)
  if m.cl > 0 and is_held_back(m) then return to_far(m) end
  m.state = 'R'
  redis.call('ZADD', K('r:' .. m.prio .. ':' .. m.tenant), m.seq, m.id)
  local ring, its_lanes = K('t:' .. m.prio), lanes_of(m.tenant)
  if its_lanes then
    redis.call('ZADD', ring, 'NX', 0, m.tenant)
    return its_lanes.offer(m.prio, m.tenant)
  end
  local low = redis.call('ZRANGE', ring, 0, 0, 'WITHSCORES')[2] or '0'
  return redis.call('ZADD', ring, 'NX', low, m.tenant) == 1
end

-- What comes back unsent gives its releases back, or after a hold the bucket of releases would be
-- the brake although the one at the wire is full. (release caps the level.)
local function credit_releases(count)
  if count > 0 and redis.call('HEXISTS', K('gate'), 'rel_level') == 1 then
    redis.call('HINCRBYFLOAT', K('gate'), 'rel_level', count)
  end
end

-- The same for a tenant's cap, where it has one.
local function credit_tenant(m)
  if m.tenant == '' then return end
  local its_lanes = lanes_of(m.tenant)
  local name = its_lanes and its_lanes.name_of(m.tenant) or m.tenant
  if redis.call('HEXISTS', K('tb'), name .. ':l') == 1 then
    -- pcall: what somebody's hand made no number is as good as none, and must not keep what comes back.
    redis.pcall('HINCRBYFLOAT', K('tb'), name .. ':l', 1)
  end
end

-- Held under this nonce. What is merged is taken without a look at it (take), so its header says ready
-- still, and the batch's set alone says who holds it; from here on the header does, once written.
local function held(m, nonce)
  if m.nonce == nonce and (m.state == 'L' or m.state == 'B') then return true end
  if m.state ~= 'R' or redis.call('SISMEMBER', K('b:' .. nonce), m.id) == 0 then return false end
  m.state, m.nonce = 'L', nonce
  return true
end

-- Where one is that says ready: in its place, or held (L), or in a merged request (Q), whose nonce or id
-- becomes its nonce. To be asked before one leaves that was not found in a container.
local function locate(m)
  if m.state ~= 'R' or redis.call('ZSCORE', K('r:' .. m.prio .. ':' .. m.tenant), m.id) then return m end
  for _, nonce in ipairs(redis.call('ZRANGE', K('batches'), 0, -1)) do
    if redis.call('SISMEMBER', K('b:' .. nonce), m.id) == 1 then
      m.state, m.nonce = 'L', nonce
      return m
    end
  end
  for _, request in ipairs(redis.call('HKEYS', K('q'))) do
    if redis.call('SISMEMBER', K('qs:' .. string.sub(request, 2)), m.id) == 1 then
      m.state, m.nonce = 'Q', string.sub(request, 2)
      return m
    end
  end
  return m
end

local function from_ready(m)
  local place = K('r:' .. m.prio .. ':' .. m.tenant)
  redis.call('ZREM', place, m.id)
  if redis.call('EXISTS', place) == 0 then
    redis.call('ZREM', K('t:' .. m.prio), m.tenant)
    local its_lanes = lanes_of(m.tenant)
    if its_lanes then
      redis.call('ZREM', K('el:' .. m.prio), m.tenant)
      redis.call('SREM', its_lanes.aside(its_lanes.name_of(m.tenant), m.prio), m.prio .. ':' .. m.tenant)
    end
  end
end

local function to_scheduled(m, due)
  m.state, m.due = 'W', due
  redis.call('SETRANGE', K('m:' .. m.id), 48, struct.pack('>d', due))
  redis.call('ZADD', K('s'), due, m.id)
end

-- To be tried again then. What is to be in order waits at its place, with all that is behind it.
local function to_later(m, due)
  local its_lanes = lanes_of(m.tenant)
  local order = its_lanes and its_lanes.order_of(m.tenant)
  if not order then return to_scheduled(m, due) end
  its_lanes.bar(order, due)
  to_ready(m)
end

-- Out of the batch that holds it; an empty batch goes (write_tally).
local function from_batch(m)
  redis.call('SREM', K('b:' .. m.nonce), m.id)
  touched[m.nonce] = true
  local its_lanes = m.tenant and lanes_of(m.tenant)
  if its_lanes then its_lanes.count(m.tenant, -1) end
end

local function leave(m)
  if m.state == 'R' then from_ready(m)
  elseif m.state == 'W' then redis.call('ZREM', K('s'), m.id)
  elseif m.state == 'D' then redis.call('ZREM', K('dead'), m.id)
  elseif m.state == 'K' then redis.call('ZREM', K('parked'), m.id)
  else from_batch(m) end
end

-- One attempt on record (JSON), the last ten kept.
-- pcall: see read().
local function note_attempt(id, json)
  redis.pcall('RPUSH', K('a:' .. id), json)
  redis.pcall('LTRIM', K('a:' .. id), -10, -1)
end

local function sha1_raw(hex)
  return (string.gsub(hex, '..', function(h) return string.char(tonumber(h, 16)) end))
end

local function keep_for()
  if not keep_ms then
    local cfg = redis.call('HMGET', K('cfg'), 'record_us', 'events')
    keep_ms = math.floor(tonumber(cfg[1]) / 1000)
    if wanted == nil then events_as(cfg[2]) end
  end
  return keep_ms
end

--@merged

-- The end: the payload goes, a record stays for the destination's window. The message must have
-- left its container. `sha` is 20 raw bytes, or nil: then the payload is hashed here. Returns how
-- many messages ended: all members of a merged request; `each` is told when they were accepted
-- (finish_request).
local function finish(m, state, now, nonce, sha, provider_id, each)
  if is_request(m.id) then return finish_request(m, state, now, nonce, provider_id, each) end
  local name = K('m:' .. m.id)
  local size = redis.call('STRLEN', name)
  if m.cl > 0 then count_campaign(m, state == 'M' and 'moved_out' or ENDS[state], {m.id}) end
  if not sha or #sha ~= 20 then
    sha = sha1_raw(redis.sha1hex(redis.call('GETRANGE', name, m.body_from, -1)))
  end
  redis.call('SET', name, 'p' .. state .. nonce .. struct.pack('>d', now) .. sha
    .. string.sub(provider_id or '', 1, 100), 'PX', keep_for())
  redis.call('PEXPIRE', K('a:' .. m.id), keep_ms)
  if m.expires > 0 then redis.call('ZREM', K('e'), m.id) end
  bump('bytes', -(size - m.body_from))
  tell(ENDS[state], m.id, details_of(m.id, provider_id))
  if each then each(m.at, m.at, m.at, 1) end
  return 1
end

-- Out of a merged request, one by one (merged.lua). The request must have left its container. Returns how
-- many there were, and how many went where they were to: others had been sent, or cancelled.
local function thaw(m, to, now, json)
  local count, moved, wakes, leased = 0, 0, false, {}
  local late = redis.call('EXISTS', late_key(m.id)) == 1
  each_member(members_of(m.id), function(id)
    local one = read(id)
    if not one or one.state ~= 'R' then return end
    count = count + 1
    if late and redis.call('SISMEMBER', late_key(m.id), id) == 1 then
      bump('sent', finish(one, 'S', now, string.sub(m.id, 2)))
      bump('late_sent')
      return
    end
    one.attempts = math.min(one.attempts + m.attempts, 65535)
    one.tries = math.max(one.tries, m.tries)
    if one.flag == 'c' and (to == 'R' or to == 'L') then
      finish(one, 'C', now, one.nonce)
      bump('cancelled')
      return
    end
    one.state = to
    moved = moved + 1
    if to == 'R' then
      wakes = to_ready(one) or wakes
    elseif to == 'L' or to == 'B' then
      one.nonce = m.nonce
      leased[#leased + 1] = id
    else
      redis.call('ZADD', K(to == 'D' and 'dead' or 'parked'), now, id)
      tell(to == 'D' and dead_kind() or 'parked', id, details_of(m.id))
      if json and json ~= '' then note_attempt(id, json) end
    end
    write(one)
  end)
  in_pieces('SADD', K('b:' .. m.nonce), leased)
  end_request(m, 'Z', now, m.nonce, count, '')
  if wakes then
    redis.call('LPUSH', K('wake'), '1')
    redis.call('LTRIM', K('wake'), 0, 3)
  end
  return count, moved
end

-- Out of a merged request that never began; the others go back to their places, to be merged anew. nil
-- where it has begun: its bytes are not changed.
local function out_of_request(m, now)
  local request = read('+' .. m.nonce)
  if not request or request.attempts > 0 then return nil end
  leave(locate(request))
  thaw(request, 'R', now)
  return read(m.id)
end

local function is_over(m, now, max_age_us)
  return (m.expires > 0 and m.expires <= now) or m.at + max_age_us <= now
end

-- Of a merged request that never began those that are over end, and the others go back to their places,
-- to be merged anew.
local function expire_message(m, now, max_age_us)
  leave(m)
  if not is_request(m.id) or m.attempts > 0 then
    bump('expired', finish(m, 'X', now, m.nonce))
    return
  end
  local all = members_of(m.id)
  thaw(m, 'R', now)
  each_member(all, function(id)
    local one = read(id)
    if one and one.state == 'R' and is_over(one, now, max_age_us) then
      leave(one)
      bump('expired', finish(one, 'X', now, one.nonce))
    end
  end)
end

-- Requests a second now: as configured or set live, and not above the pace that results allow.
local function rate_of(configured, live, pace)
  local rate = tonumber(live) or tonumber(configured)
  pace = tonumber(pace)
  return pace and pace < rate and pace or rate
end

-- What an operator did, on record: the last hundred.
local function log_hand(entry)
  redis.call('LPUSH', K('hand'), cjson.encode(entry))
  redis.call('LTRIM', K('hand'), 0, 99)
end

-- Paused, or held: what, until when (us, -1 for ever), why. nil when the way is free.
-- `g` is given where the caller has read these five fields (and more after them) itself.
local function closed(now, g)
  g = g or redis.call('HMGET', K('gate'), 'pause_until', 'pause_why',
    'hold_until', 'hold_why', 'hold_kind')
  local pause, hold = tonumber(g[1] or 0), tonumber(g[3] or 0)
  if pause == -1 or pause > now then return 'paused', pause, g[2] or '' end
  if hold == -1 or hold > now then return g[5] or 'held', hold, g[4] or '' end
  return nil
end
