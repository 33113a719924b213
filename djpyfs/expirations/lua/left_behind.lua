#!lua flags=no-writes
-- left_behind: tells which members may have been overlooked by who went through all keys, one after
-- the other: those that were claimed while it did.
-- KEYS[12]  returned, a SET: members that were claimed while records move
-- KEYS[13]  in transit, a HASH: member -> what is known of it
-- Returns   {members that are claimed, members that were, members in transit}
-- Touches   nothing
return {
  redis.call('ZRANGE', claimed, 0, -1), redis.call('SMEMBERS', KEYS[12]), redis.call('HKEYS', KEYS[13]),
}
