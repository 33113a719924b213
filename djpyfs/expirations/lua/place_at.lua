#!lua
-- place_at: gives a member a known deadline, or none.
-- ARGV     end of a lease known to be over or 0, member, deadline or 0, deadline that it must have now
--          (0: none; -1: any or none)
-- Returns  {time left of a live claim that forbids this or 0, end of its lease or 0,
--           1 if a claim had lapsed}
-- Touches  all
local over, member, deadline, expected = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local left, ends, lapsed = claim_on(member, over)
if lapsed then
  unclaim(member)
end
if left == 0 and (expected < 0 or expected == (deadline_of(member) or 0)) then
  forget(member)
  confirm(member)
  redis.call('HDEL', owners, member)
  if deadline > 0 then
    set_deadline(member, deadline)
  end
end
return {left, ends, lapsed and 1 or 0}
