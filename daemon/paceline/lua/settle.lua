#!lua flags=allow-oom
--@lib
-- settle: leased -> sent, scheduled again, dead, parked, or back to its old place untouched; many
-- at a time, with attempt records, counters and latency histogram in the same call.
-- Repeated: nothing moves. A late `sent` from a worker presumed dead is true all the same: it wins
-- over ready, scheduled, leased, dead and parked; a second `sent` is recorded as a duplicate.
-- Other late outcomes are dropped.
--
-- KEYS  {destination}
-- ARGV  now_us or '', then 12 a message:
--       id, nonce, action, charge (0|1), delay_us, why, attempt record (JSON or ''),
--       provider's id, SHA-1 of the payload (20 raw bytes or ''), latency us ('' none),
--       outcome label ('' none), begun at us ('' never begun)
--   action  sent
--           retry        scheduled after delay_us, charged or not
--           unavailable  as retry; three within the last 20 results make the destination wait
--           dead, parked
--           back         to its old place, untouched
--           throttled    back, and the destination waits delay_us (0: by its own doubling)
--           held         back, and the destination is held until an operator resumes it
-- Returns one word a message: ok, repeat, late (dropped), won (a late sent), duplicate, gone.
local ITEM = 12
local SLOTS_US = {1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000,
  5000000, 10000000, 30000000, 60000000, 300000000}
T = KEYS[1]
local now = clock(ARGV[1])
local histogram, outcomes, results, gate = {}, {}, {}, {good = 0}
local cfg = redis.call('HMGET', K('cfg'), 'throttle_first_us', 'throttle_cap_us', 'record_us')
keep_ms = math.floor(tonumber(cfg[3]) / 1000)

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

local function hold(kind, till, why)
  local g = redis.call('HMGET', K('gate'), 'hold_until', 'hold_kind')
  local old = tonumber(g[1] or 0)
  if old == -1 or (till ~= -1 and old >= till) then return end
  redis.call('HSET', K('gate'), 'hold_until', till, 'hold_kind', kind, 'hold_why', why,
    'hold_since', now)
end

-- 429s of requests that were all under way when the first came are one event: the doubling counts
-- events, or ten connections would wait a thousand times too long.
local function throttle(delay_us, why, begun)
  local g = redis.call('HMGET', K('gate'), 'throttles', 'throttle_at')
  local count, last = tonumber(g[1] or 0), tonumber(g[2] or 0)
  if begun > last or count == 0 then
    count = count + 1
    redis.call('HSET', K('gate'), 'throttles', count, 'throttle_at', now)
    gate.throttles, gate.throttle_at = count, now
    bump('throttles')
  end
  if delay_us <= 0 then
    delay_us = math.min(tonumber(cfg[2]), tonumber(cfg[1]) * 2 ^ math.min(count - 1, 30))
  end
  hold('throttled', math.floor(now + delay_us), why)
end

local function result(letter)
  if not gate.recent then
    local g = redis.call('HMGET', K('gate'), 'recent', 'throttles', 'throttle_at')
    gate.recent, gate.throttles = g[1] or '', tonumber(g[2] or 0)
    gate.throttle_at = tonumber(g[3] or 0)
  end
  gate.recent = string.sub(gate.recent .. letter, -100)
end

local function late_sent(item, m, was_begun_elsewhere)
  leave(m)
  finish(m, 'S', now, item.nonce, item.sha, item.provider_id)
  bump('sent')
  bump('late_sent')
  if was_begun_elsewhere then bump('overtaken') end
end

local function settle_sent(item, m)
  if not m then
    -- pcall: see read().
    local record = redis.pcall('GETRANGE', K('m:' .. item.id), 0, 17)
    if type(record) ~= 'string' or string.sub(record, 1, 1) ~= 'p' then return 'gone' end
    local sent = string.sub(record, 2, 2) == 'S'
    if sent and string.sub(record, 3, 18) == item.nonce then return 'repeat' end
    -- The nonces of further ones are kept as long as the record: repeated, in whatever order,
    -- each counts once.
    local others, ttl = K('dup:' .. item.id), redis.call('PTTL', K('m:' .. item.id))
    local fresh = redis.call('SADD', others, item.nonce) == 1
    redis.call('PEXPIRE', others, ttl)
    if not sent then
      if fresh then bump('sent_after_end') end
      return 'gone'
    end
    if not fresh then return 'repeat' end
    bump('duplicates')
    if item.record ~= '' then note_attempt(item.id, item.record) end
    redis.call('PEXPIRE', K('a:' .. item.id), ttl)
    return 'duplicate'
  end
  local ours = m.nonce == item.nonce and (m.state == 'L' or m.state == 'B')
  if item.record ~= '' and (not ours or m.attempts > 1) then note_attempt(item.id, item.record) end
  observe('sent', now - m.at)
  if not ours then
    late_sent(item, m, m.state == 'B')
    return 'won'
  end
  leave(m)
  finish(m, 'S', now, item.nonce, item.sha, item.provider_id)
  bump('sent')
  return 'ok'
end

local function place_back(item, m)
  local wakes = to_ready(m)
  write(m)
  if wakes then
    redis.call('LPUSH', K('wake'), '1')
    redis.call('LTRIM', K('wake'), 0, 3)
  end
  bump('returned')
  credit_releases(1)
end

local function settle_other(item, m)
  if not m then return 'gone' end
  if m.nonce ~= item.nonce then return 'late' end
  if m.state ~= 'L' and m.state ~= 'B' then return 'repeat' end
  if item.record ~= '' then note_attempt(item.id, item.record) end
  leave(m)
  local action = item.action
  if m.flag == 'c' and action ~= 'dead' and action ~= 'parked' then
    finish(m, 'C', now, m.nonce)
    bump('cancelled')
  elseif action == 'retry' or action == 'unavailable' then
    m.tries = math.min(m.tries + item.charge, 65535)
    to_scheduled(m, now + item.delay_us)
    write(m)
    bump('retried')
  elseif action == 'dead' then
    m.state, m.tries = 'D', math.min(m.tries + item.charge, 65535)
    redis.call('ZADD', K('dead'), now, m.id)
    write(m)
    bump('died')
  elseif action == 'parked' then
    m.state, m.tries = 'K', math.min(m.tries + item.charge, 65535)
    redis.call('ZADD', K('parked'), now, m.id)
    write(m)
    bump('stopped')
  else
    place_back(item, m)
  end
  if action == 'throttled' then throttle(item.delay_us, item.why, item.begun) end
  if action == 'held' then hold('held', -1, item.why) end
  return 'ok'
end

for i = 2, #ARGV, ITEM do
  local item = {id = ARGV[i], nonce = ARGV[i + 1], action = ARGV[i + 2],
    charge = tonumber(ARGV[i + 3]), delay_us = tonumber(ARGV[i + 4]), why = ARGV[i + 5],
    record = ARGV[i + 6], provider_id = ARGV[i + 7], sha = ARGV[i + 8],
    label = ARGV[i + 10], begun = tonumber(ARGV[i + 11]) or 0}
  local m = read(item.id)
  local word
  if item.action == 'sent' then word = settle_sent(item, m) else word = settle_other(item, m) end
  results[#results + 1] = word
  if word == 'ok' or word == 'won' or word == 'duplicate' then
    if item.label ~= '' then add(outcomes, item.label, 1) end
    if ARGV[i + 9] ~= '' then observe('api', tonumber(ARGV[i + 9])) end
    if item.action == 'sent' then
      result('g')
      gate.good = math.max(gate.good, item.begun)
    elseif item.action == 'unavailable' then result('u')
    elseif item.begun > 0 and item.action ~= 'back' then result('b') end
    if item.action == 'unavailable' then
      local _, count = string.gsub(string.sub(gate.recent, -20), 'u', '')
      if count >= 3 then throttle(0, item.why .. ': three in the last 20 results', item.begun) end
    end
  end
end

if gate.recent then redis.call('HSET', K('gate'), 'recent', gate.recent) end
-- One success that began after the refusal ends the doubling: the provider takes requests again.
-- One that was under way already tells nothing.
if gate.good > 0 and gate.throttles > 0 and gate.good > gate.throttle_at then
  redis.call('HSET', K('gate'), 'throttles', 0)
end
add_up('h', histogram)
add_up('o', outcomes)
write_tally()
return results
