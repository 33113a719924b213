#!lua flags=allow-oom
-- lay: stores a new layout in place of the one that the caller believes in.
-- KEYS[1]  format
-- ARGV     layout
-- Returns  nothing
-- Touches  format
redis.call('SET', KEYS[1], ARGV[1])
