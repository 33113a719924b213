#!lua flags=allow-oom
-- deliver: forgets members that have arrived in their new shard.
-- KEYS[12]  returned, a SET: members whose claims ended while records move
-- KEYS[13]  in transit, a HASH: member -> its record
-- ARGV      member...
-- Returns   nothing
-- Touches   returned, in transit
in_slices(ARGV, 'SREM', KEYS[12])
in_slices(ARGV, 'HDEL', KEYS[13])
