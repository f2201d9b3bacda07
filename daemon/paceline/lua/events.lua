-- events: what became of messages, told in the stream T:ev by the very script in which it happened
-- (docs/events.md). scripts.py puts this text into lib.lua, in the place of its line "--@events".
--
-- A script puts down what it did (put_down), and write_tally writes it, with the counters. Messages of
-- which the same is to be told share an entry: all that one call accepted, all members of a merged
-- request. Fields of an entry:
--   kind  ids (separated by blanks)  n (how many ids)  at (us)
--   seq   number of its first id among all that were ever told here. So the first entry that is left
--         tells how many were trimmed away, and a gap shows a reader what it has missed
--   provider_id, status, latency_us, attempt, reason, request: where there are such
-- cfg.events is '' (off) or '<most ids> <age us> <kind> <kind> ... '.
local EVENT_IDS, EVENT_STEP = 1000, 64
local ENDS = {S = 'sent', C = 'cancelled', X = 'expired', T = 'dropped', M = 'moved'}
-- wanted: nil not looked at yet, false off. about: details of the message that is settled just now.
local wanted, told, about

local function events_as(text)
  told, wanted = {}, false
  if not text or text == '' then return end
  local most, age_us, kinds = string.match(text, '^(%d+) (%d+)( .* )$')
  wanted = {most = tonumber(most), age_us = tonumber(age_us), kinds = kinds}
end

local function wants(kind)
  if wanted == nil then events_as(redis.call('HGET', K('cfg'), 'events')) end
  if not wanted then return false end
  local known = wanted[kind]
  if known == nil then
    known = string.find(wanted.kinds, ' ' .. kind .. ' ', 1, true) ~= nil
    wanted[kind] = known
  end
  return known
end

-- `details`: fields and values, one table for all that share it. Only where it is wanted.
local function put_down(kind, id, details)
  local last = told[#told]
  if last and last.kind == kind and last.details == details and #last.ids < EVENT_IDS then
    last.ids[#last.ids + 1] = id
  else
    told[#told + 1] = {kind = kind, ids = {id}, details = details}
  end
end

local function tell(kind, id, details)
  if wants(kind) then put_down(kind, id, details) end
end

-- What is to be told of this one besides what happened: nothing, most often.
local function details_of(id, provider_id)
  if about and about.id == id then return about.details end
  if provider_id and provider_id ~= '' then return {'provider_id', string.sub(provider_id, 1, 100)} end
end

local function dead_kind() return about and about.dead or 'dead' end

-- By age, then by how many ids are left: `exactly`, or by whole nodes of the stream, which costs
-- nothing. Entries are of unlike weight: a share of them goes that is the share of ids too many, and
-- the rest another time. pcall: somebody may have overwritten the key.
local function trim_events(total, exactly)
  local ev, trimmed = K('ev'), nil
  local function first_left()
    local first = redis.pcall('XRANGE', ev, '-', '+', 'COUNT', 1)
    trimmed = total
    if type(first) ~= 'table' or not first[1] then return end
    local fields = first[1][2]
    for i = 1, #fields, 2 do
      if fields[i] == 'seq' then trimmed = (tonumber(fields[i + 1]) or total + 1) - 1 end
    end
  end
  redis.pcall('XTRIM', ev, 'MINID', exactly and '=' or '~',
    string.format('%.0f', math.max(0, math.floor((moment - wanted.age_us) / 1000))))
  first_left()
  if total - trimmed > wanted.most then
    local entries = redis.pcall('XLEN', ev)
    if type(entries) == 'number' then
      redis.pcall('XTRIM', ev, 'MAXLEN', '~',
        math.max(1, math.floor(entries * wanted.most / (total - trimmed))))
      first_left()
    end
  end
  local known = tonumber(redis.call('HGET', K('n'), 'events_trimmed')) or 0
  if trimmed ~= known then
    redis.pcall('HINCRBY', K('n'), 'events_trimmed', string.format('%.0f', trimmed - known))
  end
end

-- pcall: nothing about events may keep a message from being settled. What could not be written is
-- counted.
local function write_events()
  local before = tonumber(redis.call('HGET', K('n'), 'events')) or 0
  local total, ev = before, K('ev')
  for _, event in ipairs(told) do
    local count = #event.ids
    -- Numbers as they are: Redis writes them out to the last digit.
    local reply = redis.pcall('XADD', ev, '*', 'kind', event.kind,
      'ids', count == 1 and event.ids[1] or table.concat(event.ids, ' '), 'n', count,
      'seq', total + 1, 'at', moment, unpack(event.details or {}))
    if type(reply) == 'table' and reply.err then
      bump('events_lost', count)
    else
      total = total + count
    end
  end
  bump('events', total - before)
  if math.floor(total / EVENT_STEP) ~= math.floor(before / EVENT_STEP) then trim_events(total, false) end
end
