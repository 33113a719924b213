#!lua flags=allow-oom
-- take_up: tells that a row owns a member. What is deleted only if none does has the deadline of an
-- owned one from now on, or is permanent. Of all else only what is told to be owned without having
-- waited for it is noted as owned, with the deadline that it has, unless somebody has made it permanent.
-- ARGV     end of a lease that is over or 0, member, 1 where it is owned without having waited or 0
-- Returns  {time left of the live claim that forbids it or 0, end of its lease or 0,
--           1 where a claim had lapsed}
-- Touches  all but permanent
local over, member = ARGV[1], ARGV[2]
local awaits = awaits_owner(member)
if not awaits and (ARGV[3] == '0' or is_permanent(member)) then
  return {0, 0, 0}
end
local left, ends, lapsed = claim_on(member, over)
if left > 0 then
  return {left, ends, 0}
end
local deadline = deadline_of(member) or 0
if awaits then
  deadline = tonumber(redis.call('HGET', owners, member):sub(2))
  forget(member)
  confirm(member)
  if deadline > 0 then
    set_deadline(member, deadline)
  end
end
redis.call('HSET', owners, member, '=' .. exact(deadline))
return {0, 0, lapsed and 1 or 0}
