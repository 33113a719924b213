#!lua
-- renew: moves a deadline that has not passed to now + ttl, but not beyond the latest and never
-- nearer.
-- ARGV     member, ttl, latest or 0
-- Returns  the deadline, or 0 where there is none that could be moved
-- Touches  due
local member, latest = ARGV[1], tonumber(ARGV[3])
local deadline = score(due, member)
if not deadline or deadline <= now then
  return 0
end
local renewed = now + ARGV[2]
if latest > 0 then
  renewed = math.min(renewed, latest)
end
if renewed > deadline then
  deadline = renewed
  set_deadline(member, deadline)
end
return deadline
