#!lua
-- touch: keeps a file that is about to be written from being deleted under the writer's hands.
-- Writing to an expired path starts a new life, once it is done: an overdue member is put off for
-- that long, as one whose deletion has failed, and is forgotten where there is nothing left to do.
-- One that is due later gets at least the grace. With a default ttl, a member without a deadline
-- gets one. The deadline that the same write has registered before is renewed, overdue or not.
-- ARGV     member, grace, default ttl or 0, registered deadline or 0, time to finish or 0
-- Returns  {time left of the live claim that forbids it or 0, deadline or 0, deadline before or 0,
--           1 where the default ttl gave the deadline, 1 where that is only the time to finish}
-- Touches  due, claimed, attempts, failed
local member, grace, default_ttl, registered = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local unfinished = tonumber(ARGV[5])
local left = busy(member)
if left > 0 then
  return {left, 0, 0, 0, 0}
end
local before = known_deadline(member)
local deadline = before
local own = deadline and deadline == registered
if deadline and deadline <= now then
  forget(member)
end
if deadline and not own and deadline <= now then
  deadline = nil
  if unfinished > 0 and default_ttl == 0 then
    redis.call('HSET', attempts, member, 0)
    set_deadline(member, now + unfinished)
    return {0, now + unfinished, before, 0, 1}
  end
end
-- Where one that it has registered is gone before its time, somebody has made the file permanent.
local by_default = default_ttl > 0 and (own or not deadline and registered <= now)
if by_default then
  deadline = now + default_ttl
  set_deadline(member, deadline)
elseif deadline and deadline < now + grace then
  deadline = now + grace
  set_deadline(member, deadline)
end
return {0, deadline or 0, before or 0, by_default and 1 or 0, 0}
