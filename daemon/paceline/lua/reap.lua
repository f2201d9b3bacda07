#!lua flags=allow-oom
--@lib
-- reap: lease run out -> messages begun are ambiguous (they may have been sent: tried again, or
-- parked, by policy; charged, so that a message that kills workers is bounded); those not begun go
-- back to their old place, nothing charged.
--
-- Lease time counts only while the reaper observes: after a gap of more than 2 s (nobody renewed
-- either, as likely as not: Redis was away), a restart of Redis, or a clock that stepped back, all
-- leases get a full term and nothing is reaped.
--
-- KEYS  {destination}
-- ARGV  now_us or '', run_id, daemon's id, at most how many messages
-- Returns {'terms', batches} or {'reaped', back to their place, ambiguous}
local GAP_US = 2000000
T = KEYS[1]
local now, run, most = clock(ARGV[1]), ARGV[2], tonumber(ARGV[4])
local seen = redis.call('HMGET', K('reap'), 'at', 'run')
local cfg = redis.call('HMGET', K('cfg'), 'lease_us', 'max_tries', 'retry_first_us', 'on_ambiguous',
  'merge_ambiguous')
local lease_us, max_tries = tonumber(cfg[1]), tonumber(cfg[2])
redis.call('HSET', K('reap'), 'at', now, 'run', run)
redis.call('ZADD', K('daemons'), now + 5000000, ARGV[3])
redis.call('ZREMRANGEBYSCORE', K('daemons'), '-inf', now)

local last = tonumber(seen[1] or 0)
if seen[2] ~= run or now - last > GAP_US or now < last then
  local nonces = redis.call('ZRANGE', K('batches'), 0, -1)
  for _, nonce in ipairs(nonces) do redis.call('ZADD', K('batches'), now + lease_us, nonce) end
  -- Workers that were live when last observed; one that had lapsed before stays lapsed.
  local from = now < last and '-inf' or string.format('(%.0f', last)
  for _, who in ipairs(redis.call('ZRANGEBYSCORE', K('workers'), from, '+inf')) do
    redis.call('ZADD', K('workers'), now + lease_us, who)
  end
  return {'terms', #nonces}
end

local back, ambiguous, wakes, vanished = 0, 0, false, false
local function reap_begun(m, nonce, worker)
  local count, merged = weight_of(m), is_request(m.id)
  local record = cjson.encode({outcome = 'ambiguous', reason = 'lease-expired',
    worker = worker, at_us = string.format('%.0f', now), nonce = nonce, attempt = m.attempts})
  ambiguous = ambiguous + count
  note_attempt(m.id, record)
  leave(m)
  about = {id = m.id, details = {'attempt', m.attempts, 'reason', 'lease-expired'}}
  m.tries = math.min(m.tries + 1, 65535)
  if m.flag == 'c' then
    finish(m, 'C', now, m.nonce)
    bump('cancelled')
    return
  end
  local shelf, counter
  if (merged and cfg[5] or cfg[4]) == 'park' then
    shelf, counter = 'K', 'stopped'
  elseif m.tries > max_tries then
    shelf, counter = 'D', 'died'
  else
    to_later(m, now + tonumber(cfg[3]))
    bump('retried', count)
    tell_each('retried', m)
    write(m)
    return
  end
  if merged then
    local _, moved = thaw(m, shelf, now, record)
    bump(counter, moved)
  else
    bump(counter)
    tell(shelf == 'D' and 'dead' or 'parked', m.id, about.details)
    m.state = shelf
    redis.call('ZADD', K(shelf == 'K' and 'parked' or 'dead'), now, m.id)
    write(m)
  end
end

for _, nonce in ipairs(redis.call('ZRANGEBYSCORE', K('batches'), '-inf', now)) do
  if back + ambiguous >= most then break end
  local worker = redis.call('HGET', K('bm:' .. nonce), 'worker') or ''
  for _, id in ipairs(redis.call('SMEMBERS', K('b:' .. nonce))) do
    local m = read(id)
    if not m or not held(m, nonce) then
      vanished = vanished or not m
      from_batch({id = id, nonce = nonce})
    elseif m.state == 'B' then
      reap_begun(m, nonce, worker)
    else
      back = back + weight_of(m)
      leave(m)
      if is_request(id) and m.attempts == 0 then
        thaw(m, 'R', now)
      else
        wakes = to_ready(m) or wakes
        credit_tenant(m)
        write(m)
      end
    end
  end
end
if vanished then
  -- Who deletes a message by hand takes its lane along.
  lanes_as(redis.call('HGET', K('cfg'), 'endpoints'))
  if lanes then lanes.recount(read) end
end
bump('reaped', back + ambiguous)
bump('ambiguous_reaped', ambiguous)
bump('returned', back)
credit_releases(back)
write_tally()
if wakes then
  redis.call('LPUSH', K('wake'), '1')
  redis.call('LTRIM', K('wake'), 0, 3)
end
return {'reaped', back, ambiguous}
