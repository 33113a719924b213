#!lua
-- renew: moves a deadline that has not passed to now + ttl, but never nearer, and no further than
-- the longest life after the file was written. A file dated in the future keeps its deadline.
-- ARGV     member, ttl, when it was written, longest life or 0
-- Returns  the deadline, or 0 if there is none to move
-- Touches  due
local member, written, longest = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local deadline = score(due, member)
if not deadline or deadline <= now or written > now then
  return 0
end
local renewed = now + ARGV[2]
if longest > 0 then
  renewed = math.min(renewed, written + longest)
end
if renewed > deadline then
  deadline = renewed
  set_deadline(member, deadline)
end
return deadline
