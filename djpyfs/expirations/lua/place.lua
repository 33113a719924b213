#!lua
-- place: gives a member a deadline that is known already. With a token: only if the member is
-- still claimed under it, and that claim ends.
-- ARGV     member, deadline, token or 0
-- Returns  {time left of the live claim that forbids it, or 0}
-- Touches  due, claimed, attempts, failed
local member, deadline, token = ARGV[1], ARGV[2], tonumber(ARGV[3])
if token == 0 and busy(member) > 0 then
  return {busy(member)}
end
if token == 0 or token == score(claimed, member) then
  forget(member)
  set_deadline(member, deadline)
end
return {0}
