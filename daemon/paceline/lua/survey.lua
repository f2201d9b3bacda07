#!lua flags=no-writes,allow-oom
--@lib
-- survey: in which states these messages of a campaign are, and how far back the last of them stands.
--
-- KEYS  {destination}
-- ARGV  campaign, id, ...
-- Returns a flat list of names and numbers: ready, scheduled, paused (with its campaign), leased (begun ones
--         too), dead, parked; last_due_us, of those scheduled; last:<priority>, the last place of those that
--         are ready, scheduled or leased
T = KEYS[1]
local name, found, out, unplaced = ARGV[1], {}, {}, {}
local STATES = {L = 'leased', B = 'leased', D = 'dead', K = 'parked'}
local function count(what) found[what] = (found[what] or 0) + 1 end
local function at_most(what, value) found[what] = math.max(found[what] or 0, value) end

for i = 2, #ARGV do
  local m = read(ARGV[i])
  if m and m.cl > 0 and campaign_of(m) == name then
    local far = m.state == 'W' and redis.call('ZSCORE', K('s'), m.id) == 'inf'
    if m.state ~= 'D' and m.state ~= 'K' and not far then at_most('last:' .. m.prio, m.seq) end
    if far then count('paused')
    elseif m.state == 'W' then
      count('scheduled')
      at_most('last_due_us', m.due)
    elseif m.state ~= 'R' then count(STATES[m.state])
    elseif redis.call('ZSCORE', K('r:' .. m.prio .. ':' .. m.tenant), m.id) then count('ready')
    else unplaced[#unplaced + 1] = m.id end
  end
end

-- Of a destination that merges: held, or in a request (locate).
local function take_out(set, what)
  if #unplaced == 0 then return end
  local left = {}
  for from = 1, #unplaced, 1000 do
    local upto = math.min(from + 999, #unplaced)
    for n, is in ipairs(redis.call('SMISMEMBER', set, unpack(unplaced, from, upto))) do
      if is == 1 then count(what) else left[#left + 1] = unplaced[from + n - 1] end
    end
  end
  unplaced = left
end
if #unplaced > 0 then
  for _, nonce in ipairs(redis.call('ZRANGE', K('batches'), 0, -1)) do take_out(K('b:' .. nonce), 'leased') end
  for _, id in ipairs(redis.call('HKEYS', K('q'))) do
    local request = read(id)
    local what = request and locate(request).state
    take_out(set_key(id), what == 'R' and 'ready' or what == 'W' and 'scheduled' or 'leased')
    if what == 'W' then at_most('last_due_us', request.due) end
  end
end

for _ = 1, #unplaced do count('ready') end

for what, number in pairs(found) do
  out[#out + 1] = what
  out[#out + 1] = string.format('%.0f', number)
end
return out
