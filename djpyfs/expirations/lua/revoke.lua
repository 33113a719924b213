#!lua
-- revoke: lets the links to a member that were signed so far be dead.
-- KEYS[12]  revocations, a HASH: member -> the last revocation of the links to it
-- ARGV      0, member, revocation
-- Returns   {0, 0, 0}, as no claim forbids it
-- Touches   revocations
redis.call('HSET', KEYS[12], ARGV[2], ARGV[3])
return {0, 0, 0}
