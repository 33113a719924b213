#!lua flags=allow-oom
-- lay: writes another layout down, in place of the one that the caller tells.
-- KEYS[1]  format
-- ARGV     layout
-- Returns  nothing
-- Touches  format
redis.call('SET', KEYS[1], ARGV[1])
