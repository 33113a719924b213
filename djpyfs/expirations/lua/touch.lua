#!lua
-- touch: keeps a file that is about to be written from being deleted under the writer's hands.
-- An overdue member is forgotten: writing to an expired path starts a new life. One that is due
-- later gets at least the grace. With a default ttl, a member without a deadline gets one. The
-- deadline that the same write has registered before is renewed, overdue or not.
-- ARGV     member, grace, default ttl or 0, registered deadline or 0
-- Returns  {time left of the live claim that forbids it or 0, deadline or 0, deadline before or 0,
--           1 where the default ttl gave the deadline}
-- Touches  due, claimed, attempts, failed
local member, grace, default_ttl, registered = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local left = busy(member)
if left > 0 then
  return {left, 0, 0, 0}
end
local before = known_deadline(member)
local deadline = before
local own = deadline and deadline == registered
if deadline and not own and deadline <= now then
  forget(member)
  deadline = nil
end
local by_default = default_ttl > 0 and (own or not deadline)
if by_default then
  deadline = now + default_ttl
  set_deadline(member, deadline)
elseif deadline and deadline < now + grace then
  deadline = now + grace
  set_deadline(member, deadline)
end
return {0, deadline or 0, before or 0, by_default and 1 or 0}
