#!lua flags=allow-oom
-- finish: notes that a write is done. What was overdue when it began, and still is, has a new life;
-- what nobody but writes has given a deadline lives for the default ttl from now; all else keeps its
-- deadline, and is due in the grace at the earliest. Where the lease of the write had lapsed, the
-- deadline that it found is put back if it has vanished.
-- ARGV     end of a lease that is over or 0, member, token, grace, default ttl or 0,
--          deadline when it began or 0, 1 where that had passed
-- Returns  {time left of the live claim that forbids it or 0, end of its lease or 0,
--           1 where a claim had lapsed, deadline or 0, 1 where the default ttl gave it,
--           1 where nobody can have deleted the file meanwhile}
-- Touches  all
local over, member, token, grace, default_ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local before, new_life = tonumber(ARGV[6]), ARGV[7] == '1'
local left, ends, lapsed = claim_on(member, over)
if left > 0 then
  return {left, ends, 0, 0, 0, 0}
end
if lapsed then
  unclaim(member)
end
local unbroken, provisional = end_write(member, token)
confirm(member)
local deadline, by_default = deadline_of(member), false
unbroken = unbroken or deadline == before and before > now -- nobody deletes what is not due
local kept = is_permanent(member)
if new_life and deadline == before then
  forget(member)
  deadline = nil
end
if default_ttl > 0 and (provisional or not deadline and not kept) then
  deadline, by_default = now + default_ttl, true
elseif deadline or not (unbroken or new_life or kept) and before > 0 then
  deadline = math.max(deadline or before, now + grace)
end
if deadline then
  forget(member)
  set_deadline(member, deadline)
end
return {0, 0, lapsed and 1 or 0, deadline or 0, by_default and 1 or 0, unbroken and 1 or 0}
