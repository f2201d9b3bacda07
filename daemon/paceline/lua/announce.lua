#!lua flags=allow-oom
-- announce: the names of all destinations of this Redis. A script, for a full Redis refuses a plain
-- SADD even of what is there already, and every process says it again and again.
--
-- KEYS  paceline:destinations
-- ARGV  a destination
-- Returns 1 where it is new, else 0.
return redis.call('SADD', KEYS[1], ARGV[1])
