-- wish: paceline_cancel, for any language. scripts.py puts this text into enqueue.lua, in the place of its
-- line "--@wish".
--   FCALL paceline_cancel 1 '{destination}' '<id>'
--
-- To cancel is to take a message out of whatever holds it, and Redis checks a function's commands against its
-- caller's rights: who may do that may take anything away from a worker. So who may, cancels at once; who may
-- not leaves a wish in T:cx, which the daemon carries out (wishes.lua), and asks again what became of it.
--
-- KEYS  {destination}
-- ARGV  id, [now_us, for tests]
-- Returns a word: cancelled, begun (flagged), ended (nothing to cancel), dead or parked (drop those), unknown,
--         all as cancel.lua; already (it is cancelled, and was so before this call); asked (a wish waits: call
--         again, in some milliseconds, until it is another word. Called on it, cancelled is "already")
-- Errors  PLINVALID, PLUNKNOWN: then nothing was written.
local now
--@cancelling

-- What an error left half-way in one call must not be written by the next: all calls share these.
local function forget()
  tally, touched, keep_ms, wanted, about, lanes = {}, {}, nil, nil, nil, nil
  campaigns, some_paused = {}, nil
end

-- Whether the caller's rights reach as far as cancelling does. A look at one of each kind.
local DEEDS = {{'SREM', 'b:x', 'x'}, {'DEL', 'bm:x'}, {'ZREM', 's', 'x'}, {'HSET', 'n', 'x', 'x'}, {'SPOP', 'ef:x'}}
local function may_cancel()
  for _, deed in ipairs(DEEDS) do
    if not redis.acl_check_cmd(deed[1], K(deed[2]), unpack(deed, 3)) then return false end
  end
  return true
end

local function wish(id)
  local m = read(id)
  if not m then return redis.call('EXISTS', K('m:' .. id)) == 1 and 'ended' or 'unknown' end
  if m.state == 'D' then return 'dead' end
  if m.state == 'K' then return 'parked' end
  -- Flagged already. In a merged request that has begun it says ready, and stands in no place.
  if m.flag == 'c' and (m.state == 'B'
    or m.state == 'R' and not redis.call('ZSCORE', K('r:' .. m.prio .. ':' .. m.tenant), id)) then
    return 'begun'
  end
  if redis.call('ZADD', K('cx'), 'NX', string.format('%.0f', now), id) == 1 then
    -- Wakes a sleeping scheduler.
    redis.call('LPUSH', K('wake'), '1')
    redis.call('LTRIM', K('wake'), 0, 3)
  end
  return 'asked'
end

local function cancel_or_wish(id)
  -- pcall: see read().
  if redis.pcall('GETRANGE', K('m:' .. id), 0, 1) == 'pC' then return 'already' end
  if not may_cancel() then return wish(id) end
  local word = cancel_one(id)
  write_tally()
  return word
end

local function cancel(keys, args)
  if #keys ~= 1 or not keys[1]:match('^{[a-z0-9][a-z0-9_-]*}$') then
    return refuse('PLINVALID', "key: must be one key, the destination in braces, as '{maxmd}'")
  end
  local id, now_us = args[1], args[2]
  if not id or #args > 2 or (now_us and not (#now_us < 18 and now_us:match('^%d*$'))) then
    return refuse('PLINVALID', 'arguments: must be the id of one message')
  end
  if #id > 128 or not id:match('^[%w._-]+$') then
    return refuse('PLINVALID', 'id: must be 1 to 128 characters of A-Z a-z 0-9 . _ -')
  end
  T = keys[1]
  if redis.call('HEXISTS', K('cfg'), 'max_payload') == 0 then return unknown_destination(T) end
  forget()
  now = clock(now_us)
  local word, stuck = guarded(cancel_or_wish, id)
  if stuck then forget() end
  return word
end

-- allow-oom: a full Redis is one reason more to cancel.
redis.register_function{function_name = 'paceline_cancel', callback = cancel, flags = {'allow-oom'}}
