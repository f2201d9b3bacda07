-- campaigns: which live messages belong to which campaign, what became of the others, and which campaigns
-- are paused (docs/campaigns.md). scripts.py puts this text into lib.lua, in the place of its line
-- "--@campaigns". A message without a campaign (m.cl is 0) costs one look at m.cl.
--   T:c:<campaign>   set: ids of its live messages
--   T:cn:<campaign>  hash: what became of all that ever came: accepted, moved_in, sent, expired, cancelled,
--                    dropped, moved_out
--   T:cs             zset: campaigns, +inf while one has live messages, else when its totals go (sweep)
--   T:cp             hash: paused campaigns, to who paused when and why (JSON)
--   T:cw             hash: campaigns whose messages are under way into the wait or out of it: how far
-- A paused message is scheduled for '+inf' (T:s); its header's due stays what it was, and its place.
-- What one script does to a campaign is written at its end, together.
local FAR = '+inf'
local campaigns, some_paused = {}, nil

local function in_campaign(name)
  local it = campaigns[name]
  if not it then
    it = {came = {}, left = {}, n = {}}
    campaigns[name] = it
  end
  return it
end

-- Of a message or a merged request; only where m.cl > 0. Its name stands before the body.
local function campaign_of(m)
  if not m.campaign then
    m.campaign = redis.call('GETRANGE', K('m:' .. m.id), m.body_from - m.cl, m.body_from - 1)
  end
  return m.campaign
end

-- `ids` of m's campaign came (accepted, moved_in) or ended (any other).
local function count_campaign(m, field, ids)
  local it = in_campaign(campaign_of(m))
  local list = (field == 'accepted' or field == 'moved_in') and it.came or it.left
  for _, id in ipairs(ids) do list[#list + 1] = id end
  it.n[field] = (it.n[field] or 0) + #ids
end

-- Whether it waits with its campaign, which is paused. A request that has begun goes on: its bytes may
-- have been sent.
local function is_held_back(m)
  if m.cl == 0 or (m.attempts > 0 and string.byte(m.id) == 43) then return false end
  if some_paused == nil then some_paused = redis.call('EXISTS', K('cp')) == 1 end
  return some_paused and redis.call('HEXISTS', K('cp'), campaign_of(m)) == 1
end

local function to_far(m)
  m.state = 'W'
  redis.call('ZADD', K('s'), FAR, m.id)
end

-- pcall: see read(). A thousand at once: unpack() puts its values on a stack of 8,000.
local function write_campaigns()
  local function all(command, name, ids)
    for from = 1, #ids, 1000 do
      redis.pcall(command, name, unpack(ids, from, math.min(from + 999, #ids)))
    end
  end
  for name, it in pairs(campaigns) do
    local set = K('c:' .. name)
    if #it.came > 0 then
      if redis.call('EXISTS', set) == 0 then redis.pcall('ZADD', K('cs'), '+inf', name) end
      all('SADD', set, it.came)
    end
    if #it.left > 0 then
      all('SREM', set, it.left)
      if redis.call('EXISTS', set) == 0 then
        local keep_us = tonumber(redis.call('HGET', K('cfg'), 'record_us'))
        redis.pcall('ZADD', K('cs'), string.format('%.0f', moment + keep_us), name)
      end
    end
    for field, by in pairs(it.n) do redis.pcall('HINCRBY', K('cn:' .. name), field, by) end
  end
end

