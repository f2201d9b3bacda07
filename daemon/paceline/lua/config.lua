#!lua flags=allow-oom
--@lib
-- config: the shared copy of a destination's configuration, without secrets. The first process
-- publishes it; one whose copy differs is refused while others live by the old one.
--
-- KEYS  {destination}
-- ARGV  now_us or '', digest, public configuration (JSON), force (0|1), then field, value, ...
--       (numbers that the scripts read)
-- Returns {'published', version} | {'same', version} | {'differs', version, JSON in force}
T = KEYS[1]
local now, digest = clock(ARGV[1]), ARGV[2]
local old = redis.call('HMGET', K('cfg'), 'digest', 'version', 'json')
if old[1] == digest then return {'same', tonumber(old[2])} end
local busy = redis.call('ZCOUNT', K('workers'), '(' .. string.format('%.0f', now), '+inf')
  + redis.call('ZCOUNT', K('daemons'), '(' .. string.format('%.0f', now), '+inf')
if old[1] and busy > 0 and ARGV[4] ~= '1' then return {'differs', tonumber(old[2]), old[3]} end
local version = tonumber(old[2] or 0) + 1
local fields = {'digest', digest, 'version', version, 'json', ARGV[3]}
for i = 5, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('HSET', K('cfg'), unpack(fields))
local cfg = redis.call('HMGET', K('cfg'), 'burst', 'connections', 'reserve')
-- Until the first heartbeat: as if every connection were out.
local usable = math.max(1, math.min(tonumber(cfg[2]), tonumber(cfg[1]) - 1 - tonumber(cfg[3])))
redis.call('HSET', K('gate'), 'k', math.max(0, tonumber(cfg[1]) - usable))
return {'published', version}
