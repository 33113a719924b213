#!lua flags=allow-oom
-- cancel: forgets a member; with a deadline given, only while that is still the member's.
-- ARGV     member, deadline or 0
-- Returns  {time left of the live claim that forbids it, or 0}
-- Touches  due, claimed, attempts, failed
local member, expected = ARGV[1], tonumber(ARGV[2])
local left = busy(member)
if left == 0 and (expected == 0 or expected == score(due, member)) then
  forget(member)
end
return {left}
