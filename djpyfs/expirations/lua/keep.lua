#!lua
-- keep: makes a member permanent, and remembers that.
-- ARGV     end of a lease known to be over or 0, member
-- Returns  {time left of a live claim that forbids this or 0, end of its lease or 0,
--           1 if a claim had lapsed}
-- Touches  all
local over, member = ARGV[1], ARGV[2]
local left, ends, lapsed = claim_on(member, over)
if left == 0 then
  forget(member)
  confirm(member)
  redis.call('HDEL', owners, member)
  redis.call('SADD', permanent, member)
end
return {left, ends, lapsed and 1 or 0}
