#!lua flags=allow-oom
--@lib
-- errand: a request that carries no message: it asks the provider what became of one that was sent.
-- It counts against the rate like any other, so its permit is drawn here from the same bucket, when
-- the connection is up (bucket.lua); like a message of normal priority, it leaves the reserve alone.
-- While the breaker is open none passes: it is no probe.
--
-- Who is to be asked about is in poll, id -> due (settle puts it there). The lowest two bits of that
-- number are no microseconds: they tell how often it was handed out. With its permit an id is handed
-- out for five minutes: whoever dies meanwhile, or learns nothing, leaves it to be asked about again,
-- three times in all. One whose record is gone, or that was handed out three times, is forgotten.
--
-- KEYS  {destination}
-- ARGV  now_us or '', run_id as for begin, op, then
--   look                   what is due; draws nothing
--   draw  id, mark, bytes  a permit for the request about one that look named, with the mark that it
--                          named; asked again with the mark of the last permit, it draws another
--   note  id, record       what was learnt (JSON), onto its attempts
-- Returns
--   look  {'due', id, mark, provider's id} | {'none'} | {'closed', what, us or -1, why}
--   draw  {'go', wait_us, now_us, mark} | {'wait', us} | {'closed', ...} as begin | {'gone', 'taken'}
--   note  {'noted'} | {'gone'}
local AGAIN_US, MOST, LOOKED_AT = 300000000, 3, 100
T = KEYS[1]
local now, run, op = clock(ARGV[1]), ARGV[2], ARGV[3]
--@bucket

-- The provider's id from the record of one that was sent; nil where there is none.
-- pcall: see read().
local function sent_as(id)
  local record = redis.pcall('GETRANGE', K('m:' .. id), 0, RECORD_HEAD + 99)
  if type(record) ~= 'string' or string.sub(record, 1, 2) ~= 'pS' then return nil end
  local provider_id = string.sub(record, RECORD_HEAD + 1)
  return provider_id ~= '' and provider_id or nil
end

local function find()
  look()
  if what then return closed_now() end
  local found = redis.call('ZRANGEBYSCORE', K('poll'), '-inf', string.format('%.0f', now), 'WITHSCORES',
    'LIMIT', 0, LOOKED_AT)
  for i = 1, #found, 2 do
    local id, mark = found[i], found[i + 1]
    local provider_id = tonumber(mark) % 4 < MOST and sent_as(id)
    if provider_id then return {'due', id, mark, provider_id} end
    redis.call('ZREM', K('poll'), id)
  end
  return {'none'}
end

local function hand_out(id, mark, size)
  if redis.call('ZSCORE', K('poll'), id) ~= mark then return {'gone', 'taken'} end
  look()
  if what then return closed_now() end
  local wait_us, none = draw(false, size)
  if not wait_us then return none end
  local due, times = tonumber(mark), tonumber(mark) % 4
  -- Not due any more: it was handed out to this caller, whose permit has become too old.
  if due <= now then times = math.min(times + 1, MOST) end
  local next = string.format('%.0f', math.floor((now + AGAIN_US) / 4) * 4 + times)
  redis.call('ZADD', K('poll'), next, id)
  return {'go', wait_us, now, next}
end

local function learn(id, record)
  redis.call('ZREM', K('poll'), id)
  if not sent_as(id) then return {'gone'} end
  note_attempt(id, record)
  local ttl = redis.call('PTTL', K('m:' .. id))
  -- A record that went in a merged request has no expiry of its own.
  redis.call('PEXPIRE', K('a:' .. id), ttl < 0 and keep_for() or ttl)
  return {'noted'}
end

local reply
if op == 'look' then reply = find()
elseif op == 'draw' then reply = hand_out(ARGV[4], ARGV[5], tonumber(ARGV[6]))
else reply = learn(ARGV[4], ARGV[5]) end
write_bucket()
write_tally()
return reply
