#!lua flags=no-writes
-- linked: reads what the links to members depend on.
-- KEYS[12]  revocations, a HASH: member -> the last revocation of the links to it
-- ARGV     member...
-- Returns  {now, {deadline or 0, revocation or ''}...}
-- Touches  nothing
-- A row that nobody has heard of may own a member that waits for an owner: until a sweep has asked,
-- it lives as if that were so.
local function lives_until(member)
  if awaits_owner(member) then
    return tonumber(redis.call('HGET', owners, member):sub(2))
  end
  return deadline_of(member) or 0
end

local reply = {now}
for i = 1, #ARGV do
  local revocation = redis.call('HGET', KEYS[12], ARGV[i])
  reply[i + 1] = {lives_until(ARGV[i]), revocation or ''}
end
return reply
