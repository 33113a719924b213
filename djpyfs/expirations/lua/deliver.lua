#!lua flags=allow-oom
-- deliver: forgets members that are in their new shard.
-- KEYS[12]  returned, a SET: members that were claimed while records move
-- KEYS[13]  in transit, a HASH: member -> what is known of it
-- ARGV      member...
-- Returns   nothing
-- Touches   returned, in transit
in_slices(ARGV, 'SREM', KEYS[12])
in_slices(ARGV, 'HDEL', KEYS[13])
