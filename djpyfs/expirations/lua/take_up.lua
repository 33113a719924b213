#!lua flags=allow-oom
-- take_up: tells that a row owns a member. What is deleted only if none does has the deadline of an
-- owned one from now on, or is permanent; everything else is left alone.
-- ARGV     end of a lease that is over or 0, member
-- Returns  {time left of the live claim that forbids it or 0, end of its lease or 0,
--           1 where a claim had lapsed}
-- Touches  all
local over, member = ARGV[1], ARGV[2]
local known = redis.call('HGET', awaiting, member)
if not known then
  return {0, 0, 0}
end
local left, ends, lapsed = claim_on(member, over)
if left > 0 then
  return {left, ends, 0}
end
local deadline = tonumber(known:sub(2))
forget(member)
confirm(member)
redis.call('HDEL', awaiting, member)
if deadline > 0 then
  set_deadline(member, deadline)
else
  redis.call('SADD', permanent, member)
end
return {0, 0, lapsed and 1 or 0}
