#!lua flags=no-writes
-- linked: reads what the links to members depend on.
-- KEYS[12]  revocations, a HASH: member -> the last revocation of the links to it
-- ARGV     member...
-- Returns  {now, {deadline or 0, revocation or ''}...}
-- Touches  nothing
-- A member that a row has let go of may have another owner: until a sweep has asked, links to it
-- work as if it had.
local function lives_until(member)
  local known = redis.call('HGET', owners, member) or ''
  return known:sub(1, 1) == '-' and tonumber(known:sub(2)) or deadline_of(member) or 0
end

local reply = {now}
for i = 1, #ARGV do
  local revocation = redis.call('HGET', KEYS[12], ARGV[i])
  reply[i + 1] = {lives_until(ARGV[i]), revocation or ''}
end
return reply
