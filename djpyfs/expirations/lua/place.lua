#!lua
-- place: gives a member a deadline that is known already. With a token: only if the member is
-- still claimed under it, and that claim ends. With a deadline to expect: only while it has that.
-- ARGV     member, deadline, token or 0, deadline expected (0: that it has none) or -1
-- Returns  {time left of the live claim that forbids it, or 0}
-- Touches  due, claimed, attempts, failed
local member, deadline, token, expected = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if token == 0 and busy(member) > 0 then
  return {busy(member)}
end
local held = token == 0 or token == score(claimed, member)
local known = score(due, member) or known_deadline(member) or 0
if held and (expected < 0 or expected == known) then
  forget(member)
  set_deadline(member, deadline)
end
return {0}
