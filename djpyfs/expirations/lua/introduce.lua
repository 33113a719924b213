#!lua flags=allow-oom
-- introduce: notes that there may be records of a place, and what a person calls it.
-- KEYS[1]  places, a HASH: place -> what a person calls it
-- ARGV     place, what it is called
-- Returns  nothing
-- Touches  places
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
