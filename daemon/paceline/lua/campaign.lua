#!lua flags=allow-oom
--@lib
-- campaign: an operator's hand on a campaign. From `pause` on nothing new of it begins (to_ready and begin
-- ask); what waits follows in steps (walk.lua), and the same with `resume`.
--
-- KEYS  {destination}
-- ARGV  now_us or '', op, ...
--   op  pause   campaign, why, who
--       resume  campaign, '', who
--       walk    at about how many messages to look
-- Returns pause, resume: {1 if it was not before, live messages}
--         walk: {messages looked at, campaigns still under way}
T = KEYS[1]
local now, op, name, why, who = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5]
--@walk

if op == 'walk' then
  local looked, left = walk_campaigns(now, tonumber(name))
  write_tally()
  return {looked, left}
end

local function changed()
  if op == 'resume' then return redis.call('HDEL', K('cp'), name) end
  return redis.call('HSET', K('cp'), name,
    cjson.encode({at_us = string.format('%.0f', now), who = who, why = why}))
end

if op ~= 'pause' and op ~= 'resume' then
  return redis.error_reply('PLINVALID op: must be pause, resume or walk')
end
log_hand({at_us = string.format('%.0f', now), who = who, what = op .. ' campaign ' .. name, why = why})
-- From the start, also where the last walk is still under way. And of one that was not paused: should a
-- message wait that must not, it is found.
redis.call('HSET', K('cw'), name, '0')
return {changed(), redis.call('SCARD', K('c:' .. name))}
