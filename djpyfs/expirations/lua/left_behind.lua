#!lua flags=no-writes
-- left_behind: returns the members that a pass through all keys may have missed, because they were
-- claimed at the time.
-- KEYS[12]  returned, a SET: members whose claims ended while records move
-- KEYS[13]  in transit, a HASH: member -> its record
-- Returns   {members that are claimed, members that were, members in transit}
-- Touches   nothing
return {
  redis.call('ZRANGE', claimed, 0, -1), redis.call('SMEMBERS', KEYS[12]), redis.call('HKEYS', KEYS[13]),
}
