#!lua flags=allow-oom
-- finish: records that a write is done.
-- 1. A member that was overdue when the write began, and still is, starts a new life.
-- 2. If only writes have given it a deadline, it lives for the default ttl from now.
-- 3. Any other keeps its deadline, but is not due before now + grace.
-- If the lease of the write had lapsed, or Redis has lost it, and the deadline has vanished since, the
-- deadline comes back, and what was permanent gets none.
-- ARGV     end of a lease known to be over or 0, member, token, grace, default ttl or 0,
--          deadline when it began or 0, 1 if that had passed, 1 if it was permanent
-- Returns  {time left of a live claim that forbids this or 0, end of its lease or 0,
--           1 if a claim had lapsed, deadline or 0, 1 if the default ttl gave it,
--           1 if nobody can have deleted the file meanwhile}
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
local kept = is_permanent(member) or not unbroken and ARGV[8] == '1'
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
