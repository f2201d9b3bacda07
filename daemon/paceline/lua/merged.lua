-- merged: many messages in one request. scripts.py puts this text into lib.lua, in the place of its
-- line "--@merged".
--
-- A merged request is frozen when first built: its id, its ordered members and its bytes are kept
-- until it settles, and it is sent again whole. It is kept as a message is, in T:m:+<id> (id of 16
-- characters), whose payload is the frozen body; so take, begin, settle, promote and reap move it
-- through the containers like any message: O(1), however many members it has. Of its header,
--   attempts, tries  are the request's       seq, at   its oldest member's, until it has begun:
--   campaign         its number of members   expires   the earliest; then at is the newest's and
--   reserved part    the members' campaign             expires 0, for it is judged as a whole
-- Its members stand in no container of their own; their headers say what they said before.
--   T:q         hash: +<id> -> number of members; what must be added to the containers' sizes
--   T:qs:<id>   set: its members' ids
--   T:qm:<id>   '>ddddB': when the oldest and the newest member was accepted, the sum over all, bytes
--               of all payloads, marks (1: some expire, 2: some were tried before); then for each
--               member, in the order of the body: B length and id, SHA-1 of its payload c20, accepted
--               at d
--   T:gone      zset: ended requests, by when the records of their members go (T:qm:<id> stays so long)
--   T:late:<id> set: members of which another request's `sent` came while they were in this one,
--               which had begun
-- A request that never began thaws where it would go back: its members return to their places. One
-- that has begun stays whole, but for these ends: thawed to dead or parked, each member on its own;
-- and thawed to its lease, where the provider took it apart (results by member) or refused it as a
-- whole, so that it is to be split. Then a record 'Z' of it stays with its members, for a late `sent`.
local MEMBERS_HEAD, MEMBERS_HEAD_LEN, MEMBER_LEN = '>ddddB', 33, 29

local function is_request(id) return string.byte(id, 1) == 43 end

local function members_key(id) return K('qm:' .. string.sub(id, 2)) end
local function set_key(id) return K('qs:' .. string.sub(id, 2)) end
local function late_key(id) return K('late:' .. string.sub(id, 2)) end

-- Calls f(id, sha, at) for each member, in order; at: where its id ends.
local function each_member(all, f)
  local at, last, byte, sub = MEMBERS_HEAD_LEN + 1, #all, string.byte, string.sub
  while at <= last do
    local ends = at + byte(all, at)
    f(sub(all, at + 1, ends), sub(all, ends + 1, ends + 20), ends)
    at = ends + MEMBER_LEN
  end
end

local function members_of(id) return redis.call('GET', members_key(id)) or '' end

-- unpack() puts its values on a stack of 8,000.
local function in_pieces(command, name, items)
  for from = 1, #items, 1000 do
    redis.call(command, name, unpack(items, from, math.min(from + 999, #items)))
  end
end

-- The request itself ends. What never began leaves nothing.
local function end_request(m, state, now, nonce, count, provider_id)
  redis.call('HDEL', K('q'), m.id)
  redis.call('UNLINK', set_key(m.id), late_key(m.id))
  if m.attempts == 0 and state == 'Z' then
    redis.call('DEL', K('m:' .. m.id), members_key(m.id), K('a:' .. m.id))
    return
  end
  redis.call('SET', K('m:' .. m.id), 'p' .. state .. nonce .. struct.pack('>dd', now, count)
    .. string.rep('\0', 12) .. string.sub(provider_id or '', 1, 100), 'PX', keep_for())
  redis.call('PEXPIRE', K('a:' .. m.id), keep_for())
  if state == 'Z' then redis.call('PEXPIRE', members_key(m.id), keep_for()) end
end

-- All members end as one. Nothing of them is read: they cannot have changed while they are merged. Their
-- records are written together and have no expiry of their own: that would cost twice what the record
-- does. When the window is over, sweep.lua finds them by the list of members.
-- `each` is told when the oldest and the newest was accepted, the sum over all, and how many; where that
-- does not do (it returns false), of each of them.
local function finish_request(m, state, now, nonce, provider_id, each)
  local record = 'p' .. state .. string.sub(m.id, 2) .. struct.pack('>d', now)
  local prefix, its_id, keep, call = K('m:'), string.sub(provider_id or '', 1, 100), keep_for(), redis.call
  local all, count, ids, flat = members_of(m.id), 0, {}, {}
  local oldest, newest, sum, bytes, marks = struct.unpack(MEMBERS_HEAD, all)
  local listed = marks > 0 or m.cl > 0 or wants(ENDS[state])
  each_member(all, function(id, sha)
    flat[2 * count + 1] = prefix .. id
    flat[2 * count + 2] = record .. sha .. its_id
    count = count + 1
    if listed then ids[count] = id end
  end)
  for from = 1, 2 * count, 2000 do
    call('MSET', unpack(flat, from, math.min(from + 1999, 2 * count)))
  end
  call('ZADD', K('gone'), now + 1000 * keep, string.sub(m.id, 2))
  if wants(ENDS[state]) then
    local details = details_of(m.id) or {'request', string.sub(m.id, 2)}
    for _, id in ipairs(ids) do put_down(ENDS[state], id, details) end
  end
  if each and not each(oldest, newest, sum, count) then
    each_member(all, function(_, _, at)
      local accepted = struct.unpack('>d', all, at + 21)
      each(accepted, accepted, accepted, 1)
    end)
  end
  if marks % 2 == 1 then in_pieces('ZREM', K('e'), ids) end
  if marks >= 2 then
    for _, id in ipairs(ids) do call('PEXPIRE', K('a:' .. id), keep) end
  end
  local late = redis.call('SCARD', late_key(m.id))
  if late > 0 then bump(state == 'S' and 'duplicates' or 'sent_after_end', late) end
  bump('bytes', -bytes)
  if m.cl > 0 then count_campaign(m, ENDS[state], ids) end
  end_request(m, state, now, nonce, count, provider_id)
  return count
end

-- Of a message, or of each member of a merged request.
local function tell_each(kind, m)
  if not wants(kind) then return end
  local details = details_of(m.id)
  if is_request(m.id) then
    each_member(members_of(m.id), function(id) put_down(kind, id, details) end)
  else
    put_down(kind, m.id, details)
  end
end

-- How many messages it stands for.
local function weight_of(m)
  return is_request(m.id) and tonumber(redis.call('HGET', K('q'), m.id) or 0) or 1
end
