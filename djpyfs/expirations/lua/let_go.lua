#!lua
-- let_go: makes a member due no later than now + ttl, and lets it be deleted only if no row owns it;
-- if one does, it gets its old deadline back. A member that waits for its first owner is left alone,
-- and so is one whose deadline, or permanence, was set by hand.
-- ARGV     end of a lease known to be over or 0, member, ttl
-- Returns  {time left of a live claim that forbids this or 0, end of its lease or 0,
--           1 if a claim had lapsed}
-- Touches  all
local over, member, due_at = ARGV[1], ARGV[2], now + ARGV[3]
local left, ends, lapsed = claim_on(member, over)
if left > 0 then
  return {left, ends, 0}
end
if lapsed then
  unclaim(member)
end
local deadline, known = deadline_of(member), redis.call('HGET', owners, member)
local by_hand = not known and (deadline or is_permanent(member))
local is_new = known and known:sub(1, 1) == '+'
if not (by_hand or is_new) and (not deadline or deadline > due_at) then
  local had = awaits_owner(member) and known or '-' .. (deadline and exact(deadline) or '0')
  forget(member)
  confirm(member)
  set_deadline(member, due_at)
  redis.call('HSET', owners, member, had)
end
return {0, 0, lapsed and 1 or 0}
