#!lua
-- let_go: lets a member be due in ttl at the latest, and be deleted only if no row owns it: else it
-- has the deadline again that it had. What awaits its first owner is left alone.
-- ARGV     end of a lease that is over or 0, member, ttl
-- Returns  {time left of the live claim that forbids it or 0, end of its lease or 0,
--           1 where a claim had lapsed}
-- Touches  all
local over, member, due_at = ARGV[1], ARGV[2], now + ARGV[3]
local left, ends, lapsed = claim_on(member, over)
if left > 0 then
  return {left, ends, 0}
end
if lapsed then
  unclaim(member)
end
local deadline, known = deadline_of(member), redis.call('HGET', awaiting, member)
local later = not deadline or deadline > due_at
if later and not (known and known:sub(1, 1) == '+') then
  forget(member)
  confirm(member)
  set_deadline(member, due_at)
  redis.call('HSETNX', awaiting, member, '-' .. (deadline and exact(deadline) or '0'))
end
return {0, 0, lapsed and 1 or 0}
