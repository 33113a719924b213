#!lua flags=no-writes
-- linked: reads what the links to members depend on.
-- KEYS[12]  revocations, a HASH: member -> the last revocation of the links to it
-- ARGV     member...
-- Returns  {now, {deadline or 0, revocation or ''}...}
-- Touches  nothing
local reply = {now}
for i = 1, #ARGV do
  local revocation = redis.call('HGET', KEYS[12], ARGV[i])
  reply[i + 1] = {deadline_of(ARGV[i]) or 0, revocation or ''}
end
return reply
