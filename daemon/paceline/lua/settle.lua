#!lua flags=allow-oom
--@lib
-- settle: leased -> sent, scheduled again, dead, parked, or back to its old place untouched; many
-- at a time, with attempt records, counters and latency histogram in the same call.
-- Repeated: nothing moves. A late `sent` from a worker presumed dead is true all the same: it wins
-- over ready, scheduled, leased, dead and parked; a second `sent` is recorded as a duplicate.
-- Other late outcomes are dropped.
--
-- KEYS  {destination}
-- ARGV  now_us or '', then 14 a message:
--       id, nonce, action, charge (0|1), delay_us, why, attempt record (JSON or ''),
--       provider's id, SHA-1 of the payload (20 raw bytes or ''), latency us ('' none),
--       outcome label ('' none), begun at us ('' never begun)
--       health (g good, u 503, o outage, b other bad, '' tells nothing: health.lua), and for how
--       many us a RateLimit header says that nothing is left ('' says nothing)
--   action  sent
--           retry        scheduled after delay_us, charged or not
--           unavailable  as retry; three within the last 20 results make the destination wait
--           dead, parked
--           back         to its old place, untouched
--           throttled    back, and the destination waits delay_us (0: by its own doubling)
--           quota        the same, for a long time
--           held         back, and the destination is held until an operator resumes it
--           split        of a merged request that was refused as a whole: its members, unsent, are
--                        held by the worker again, one by one
--           opened       of one that has a result for each member: they are held again, begun, to be
--                        settled one by one
--   A merged request (+<id>) is settled like a message; what counts messages counts its members.
-- An outage charges the destination: while one is suspected, or the breaker is open, what u and o
-- say costs the message nothing, and it is not dead for it.
-- An outcome that a worker tells again to a Redis that was restarted, for it may have lost it, has
-- `redis-loss` as its why (action sent).
-- Returns one word a message: ok, repeat, late (dropped), won (a late sent), duplicate, gone, recalled
-- (sent, and unknown here: a record is written).
local ITEM = 14
local SLOTS_US = {1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000,
  5000000, 10000000, 30000000, 60000000, 300000000}
T = KEYS[1]
local now = clock(ARGV[1])
local QUOTA_FIRST_US, QUOTA_CAP_US = 60000000, 3600000000
local MOST_POLLS = 100000
local histogram, outcomes, results, good = {}, {}, {}, 0
local c = redis.call('HMGET', K('cfg'), 'throttle_first_us', 'throttle_cap_us', 'record_us', 'rate',
  'connections', 'pace', 'probe_us', 'retry_first_us', 'poll_us', 'events', 'endpoints')
local cfg = {throttle_first = tonumber(c[1]), throttle_cap = tonumber(c[2]), rate = tonumber(c[4]),
  connections = tonumber(c[5]), pace = c[6], probe_us = tonumber(c[7]), retry_first = tonumber(c[8]), poll = tonumber(c[9] or 0)}
keep_ms = math.floor(tonumber(c[3]) / 1000)
events_as(c[10])
lanes_as(c[11])
--@health

local function add(t, field, by) t[field] = (t[field] or 0) + by end
local function observe(name, us)
  if us < 0 then us = 0 end
  local slot = 'inf'
  for _, top in ipairs(SLOTS_US) do
    if us <= top then slot = string.format('%d', top) break end
  end
  add(histogram, name .. ':' .. slot, 1)
  add(histogram, name .. ':sum', us)
end

-- 429s of requests that were all under way when the first came are one event: the doubling counts
-- events, or ten connections would wait a thousand times too long.
local function throttle(kind, delay_us, why, begun, letter)
  local g = health()
  local count = g.throttles or 0
  if begun > (g.throttle_at or 0) or count == 0 then
    count = count + 1
    note('throttles', count)
    note('throttle_at', now)
    bump('throttles')
    if letter == 'u' then lower(0.7, why, 1000000, nil, TROUBLE_FLOOR, 1)
    elseif kind ~= 'quota' then refusal(why) end
    feedback(false)
  end
  if delay_us <= 0 then
    local first = kind == 'quota' and QUOTA_FIRST_US or cfg.throttle_first
    local cap = kind == 'quota' and QUOTA_CAP_US or cfg.throttle_cap
    delay_us = math.min(cap, first * 2 ^ math.min(count - 1, 30))
  end
  hold(kind, math.floor(now + delay_us), why)
  if adaptive and (health().hold_until or 0) > now then
    -- The provider's bucket is empty, so ours is: not full of what came in while it was closed.
    fold()
    note('level', math.min(health().level or 0, 0))
    note('fill_from', health().hold_until)
  end
end

local function slot_of(us)
  for i, top in ipairs(SLOTS_US) do
    if us <= top then return i end
  end
end

-- Many at once where all of them fall into one slot.
local function observe_sent(oldest, newest, sum, count)
  if count == 1 then
    observe('sent', now - oldest)
    return true
  end
  local slot = slot_of(now - oldest)
  if slot ~= slot_of(now - newest) then return false end
  add(histogram, 'sent:' .. (slot and string.format('%d', SLOTS_US[slot]) or 'inf'), count)
  add(histogram, 'sent:sum', math.max(0, count * now - sum))
  return true
end

-- The provider is to be asked about it later (errand.lua). An id that the record would cut names
-- nothing; and where the provider is asked more slowly than messages are sent, no more are put down.
local function poll_later(item)
  local size = #item.provider_id
  if cfg.poll <= 0 or size == 0 or size > 100 or is_request(item.id) then return end
  if redis.call('ZCARD', K('poll')) >= MOST_POLLS then return end
  redis.call('ZADD', K('poll'), string.format('%.0f', math.floor((now + cfg.poll) / 4) * 4), item.id)
end

-- Whether an attempt is on record that has this text; those of the merged request it was in, too.
-- pcall: see read().
local function has_attempt(item, text)
  for _, name in ipairs({item.id, '+' .. item.nonce}) do
    local found = redis.pcall('LRANGE', K('a:' .. name), 0, -1)
    for _, json in ipairs(found.err and {} or found) do
      if string.find(json, text, 1, true) then return true end
    end
  end
  return false
end

-- A second attempt has a first one of unknown fate on record (reap). Where there is none, Redis has lost
-- what it knew of the first: that is the cause, and is put on record.
local function explain_second(item)
  if has_attempt(item, '"outcome":"ambiguous"') then return end
  bump('lost_outcomes')
  note_attempt(item.id, cjson.encode({outcome = 'ambiguous', reason = 'redis-loss',
    nonce = item.nonce, at_us = string.format('%.0f', item.begun > 0 and item.begun or now)}))
end

-- The same for an attempt of unknown fate whose take Redis has lost.
local function note_forgotten(item)
  if string.sub(item.label, 1, 9) ~= 'ambiguous' or item.record == '' then return end
  if has_attempt(item, '"nonce":"' .. item.nonce .. '"') then return end
  bump('lost_outcomes')
  note_attempt(item.id, item.record)
end

local function note_forgotten_of_ended(item)
  local ttl = redis.call('PTTL', K('m:' .. item.id))
  if ttl <= 0 then return end
  note_forgotten(item)
  redis.call('PEXPIRE', K('a:' .. item.id), ttl)
end

-- Sent, and Redis has lost the message with all else: who hands it over again is told that it is there.
local function recall(item)
  if item.why ~= 'redis-loss' or #item.sha ~= 20 then return 'gone' end
  if redis.call('EXISTS', K('m:' .. item.id)) == 1 then return 'gone' end
  -- Not lost: its record had its time.
  if item.begun > 0 and now - item.begun >= keep_ms * 1000 then return 'repeat' end
  redis.call('SET', K('m:' .. item.id), 'pS' .. item.nonce .. struct.pack('>d', now) .. item.sha
    .. string.sub(item.provider_id, 1, 100), 'PX', keep_ms)
  bump('lost_sent')
  return 'recalled'
end

local function late_sent(item, m, was_begun_elsewhere)
  leave(m)
  local count = finish(m, 'S', now, item.nonce, item.sha, item.provider_id, observe_sent)
  bump('sent', count)
  bump('late_sent', count)
  poll_later(item)
  if was_begun_elsewhere then bump('overtaken', count) end
end

-- From wherever it is by now. Of one that is in a merged request that has begun it is only noted: it
-- goes with the others, and should the request be taken apart it has been sent.
local function settle_late(item, m)
  if locate(m).state == 'Q' then
    local out = out_of_request(m, now)
    if not out then
      redis.call('SADD', K('late:' .. m.nonce), m.id)
      bump('overtaken')
      return 'late'
    end
    m = out
  end
  late_sent(item, m, m.state == 'B')
  return 'won'
end

-- A merged request was sent after all, that has been taken apart since.
local function late_members(item)
  local late, rid = 0, string.sub(item.id, 2)
  each_member(members_of(item.id), function(id, sha)
    local one = read(id)
    if not one then return end
    if settle_late({id = id, nonce = rid, sha = sha, provider_id = item.provider_id}, one) == 'won' then
      late = late + 1
    end
  end)
  return late > 0 and 'won' or 'gone'
end

local function settle_sent(item, m)
  if not m then
    -- pcall: see read().
    local record = redis.pcall('GETRANGE', K('m:' .. item.id), 0, 33)
    if type(record) ~= 'string' or string.sub(record, 1, 1) ~= 'p' then return recall(item) end
    local sent = string.sub(record, 2, 2) == 'S'
    if sent and string.sub(record, 3, 18) == item.nonce then return 'repeat' end
    if string.sub(record, 2, 2) == 'Z' then return late_members(item) end
    local count = is_request(item.id) and struct.unpack('>d', record, 27) or 1
    -- The nonces of further ones are kept as long as the record: repeated, in whatever order,
    -- each counts once.
    local others, ttl = K('dup:' .. item.id), redis.call('PTTL', K('m:' .. item.id))
    -- The record of one that went in a merged request has no expiry of its own.
    if ttl < 0 then ttl = keep_ms end
    local fresh = redis.call('SADD', others, item.nonce) == 1
    redis.call('PEXPIRE', others, ttl)
    if not sent then
      if fresh then bump('sent_after_end', count) end
      return 'gone'
    end
    if not fresh then return 'repeat' end
    bump('duplicates', count)
    explain_second(item)
    if item.record ~= '' then note_attempt(item.id, item.record) end
    redis.call('PEXPIRE', K('a:' .. item.id), ttl)
    return 'duplicate'
  end
  local ours = held(m, item.nonce)
  -- Of one that was sent at the first try there is nothing to tell, but that some of it was refused.
  local told = not ours or m.attempts > 1 or string.sub(item.label, 1, 8) == 'partial:'
  if not ours and m.nonce ~= item.nonce then explain_second(item) end
  if item.record ~= '' and told then note_attempt(item.id, item.record) end
  if not ours then return settle_late(item, m) end
  leave(m)
  bump('sent', finish(m, 'S', now, item.nonce, item.sha, item.provider_id, observe_sent))
  if item.why == 'redis-loss' then bump('lost_outcomes') end
  poll_later(item)
  return 'ok'
end

local function place_back(item, m)
  local count = weight_of(m)
  bump('returned', count)
  credit_releases(count)
  if is_request(m.id) and m.attempts == 0 then
    thaw(m, 'R', now)
    return
  end
  local wakes = to_ready(m)
  write(m)
  if wakes then
    redis.call('LPUSH', K('wake'), '1')
    redis.call('LTRIM', K('wake'), 0, 3)
  end
  credit_tenant(m)
end

-- Dead or parked: each member of a merged request is, on its own.
local function shelve(item, m, state, counter)
  m.tries = math.min(m.tries + item.charge, 65535)
  if is_request(m.id) then
    local _, moved = thaw(m, state, now, item.record)
    bump(counter, moved)
    return
  end
  tell(state == 'D' and dead_kind() or 'parked', m.id, details_of(m.id))
  m.state = state
  redis.call('ZADD', K(state == 'D' and 'dead' or 'parked'), now, m.id)
  write(m)
  bump(counter)
end

-- What an endpoint's answer says is its own: it waits, fails or is disabled by itself, and the destination
-- has no breaker: fifty that are down, met one after the other, would look like an outage of all. Returns
-- whether this one has failed before.
local function judge_endpoint(item, m)
  local lane, action, fails = m.tenant, item.action, 0
  if item.health == 'g' then
    if action == 'dead' and string.find(item.label, ':410$') then
      lanes.disable(lanes.name_of(lane), item.why)
    else
      lanes.is_well(lanes.name_of(lane))
    end
  elseif action == 'throttled' or action == 'quota' then
    fails = lanes.failed(lane, item.begun, item.label, item.delay_us, cfg.throttle_first, cfg.throttle_cap)
  elseif item.health ~= '' then
    fails = lanes.failed(lane, item.begun, item.label)
  elseif action == 'back' and item.delay_us > 0 then
    -- It hangs at the worker that gives it back: not known yet to fail, but no use to take it again.
    lanes.bar(lanes.name_of(lane), now + item.delay_us)
  end
  if item.health ~= '' then bump(item.health == 'g' and 'good' or 'bad') end
  return fails > 1
end

local function settle_other(item, m)
  if not m then
    note_forgotten_of_ended(item)
    return 'gone'
  end
  if not held(m, item.nonce) then
    if m.nonce == item.nonce then return 'repeat' end
    note_forgotten(item)
    return 'late'
  end
  if item.record ~= '' then note_attempt(item.id, item.record) end
  leave(m)
  local doubtful = false
  if lanes then
    doubtful = judge_endpoint(item, m)
  else
    judge(item.id, item.health, item.action, item.begun, item.latency, item.why, m.tenant)
  end
  local action, outage = item.action, item.health == 'o' or item.health == 'u'
  if m.flag ~= 'c' then m.flag = outage and 'o' or '-' end
  if outage and (doubtful or is_suspected()) then
    item.charge = 0
    if action == 'dead' then action = 'retry' end
    item.delay_us = math.max(item.delay_us, cfg.retry_first, verdict_us())
  end
  if m.flag == 'c' and action ~= 'dead' and action ~= 'parked' then
    finish(m, 'C', now, m.nonce)
    bump('cancelled')
  elseif action == 'retry' or action == 'unavailable' then
    m.tries = math.min(m.tries + item.charge, 65535)
    to_later(m, now + item.delay_us)
    write(m)
    bump('retried', weight_of(m))
    tell_each('retried', m)
  elseif action == 'dead' then
    shelve(item, m, 'D', 'died')
  elseif action == 'parked' then
    shelve(item, m, 'K', 'stopped')
  elseif action == 'split' or action == 'opened' then
    thaw(m, action == 'split' and 'L' or 'B', now)
  else
    place_back(item, m)
  end
  if not lanes and (action == 'throttled' or action == 'quota') then
    throttle(action, item.delay_us, item.why, item.begun)
  end
  if action == 'held' then hold('held', -1, item.why) end
  return 'ok'
end

-- What its event tells of this outcome, and whether it would be the provider that made a dead letter.
-- Made for every message that is sent: no function and no pattern more than it takes.
local function about_of(item, m)
  local list, n, dead = {}, 0, nil
  if item.action == 'sent' then
    if item.provider_id ~= '' then
      list[1], list[2], n = 'provider_id', string.sub(item.provider_id, 1, 100), 2
    end
  else
    local class = string.match(item.label, '^[^:]*')
    dead = (class == 'rejected' or class == 'too_large') and 'rejected' or 'dead'
    if item.why ~= '' then list[1], list[2], n = 'reason', string.sub(item.why, 1, 200), 2 end
  end
  local status = string.match(item.label, ':(%d%d%d)$')
  if status then list[n + 1], list[n + 2], n = 'status', status, n + 2 end
  if item.latency then list[n + 1], list[n + 2], n = 'latency_us', item.latency, n + 2 end
  if m and m.attempts > 0 then list[n + 1], list[n + 2], n = 'attempt', m.attempts, n + 2 end
  if is_request(item.id) then list[n + 1], list[n + 2] = 'request', string.sub(item.id, 2) end
  return {id = item.id, details = list, dead = dead}
end

for i = 2, #ARGV, ITEM do
  local item = {id = ARGV[i], nonce = ARGV[i + 1], action = ARGV[i + 2],
    charge = tonumber(ARGV[i + 3]), delay_us = tonumber(ARGV[i + 4]), why = ARGV[i + 5],
    record = ARGV[i + 6], provider_id = ARGV[i + 7], sha = ARGV[i + 8],
    latency = tonumber(ARGV[i + 9]), label = ARGV[i + 10], begun = tonumber(ARGV[i + 11]) or 0,
    health = ARGV[i + 12], advised = tonumber(ARGV[i + 13])}
  local m = read(item.id)
  local word
  if wanted then about = about_of(item, m) end
  if item.action == 'sent' then word = settle_sent(item, m) else word = settle_other(item, m) end
  results[#results + 1] = word
  if word == 'ok' or word == 'won' or word == 'duplicate' then
    if item.label ~= '' then add(outcomes, item.label, 1) end
    if item.latency then observe('api', item.latency) end
    if item.action == 'sent' then
      if lanes and m then lanes.is_well(lanes.name_of(m.tenant)) end
      judge(item.id, item.health, 'sent', item.begun, item.latency, '', m and m.tenant or '')
      good = math.max(good, item.begun)
    end
    if item.advised and not lanes then advised(item.advised, item.begun) end
    if item.action == 'unavailable' and not lanes and recent_503() >= 3 then
      throttle('throttled', 0, item.why .. ': three in the last 20 results', item.begun, 'u')
    end
  end
end

-- One success that began after the refusal ends the doubling: the provider takes requests again.
-- One that was under way already tells nothing.
if good > 0 and (health().throttles or 0) > 0 and good > (health().throttle_at or 0) then
  note('throttles', 0)
end
watch_latency()
write_health()
add_up('h', histogram)
add_up('o', outcomes)
write_tally()
return results
