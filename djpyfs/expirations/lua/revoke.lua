#!lua
-- revoke: ends all links to a member that have been signed so far.
-- KEYS[12]  revocations, a HASH: member -> the last revocation of the links to it
-- ARGV      0, member, revocation
-- Returns   {0, 0, 0}, because no claim forbids this
-- Touches   revocations
redis.call('HSET', KEYS[12], ARGV[2], ARGV[3])
return {0, 0, 0}
