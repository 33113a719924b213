#!lua flags=allow-oom
-- take_up: records that a row owns a member. A member that waited for an owner now gets the deadline
-- of an owned one, or is permanent. Any other keeps its deadline, and is noted as owned only if the
-- caller says so and nobody has made it permanent.
-- ARGV     end of a lease known to be over or 0, member,
--          1 to note as owned a member that did not wait, or 0
-- Returns  {time left of a live claim that forbids this or 0, end of its lease or 0,
--           1 if a claim had lapsed}
-- Touches  all
local over, member = ARGV[1], ARGV[2]
local awaits = awaits_owner(member)
if not awaits and (ARGV[3] == '0' or is_permanent(member)) then
  return {0, 0, 0}
end
local left, ends, lapsed = claim_on(member, over)
if left > 0 then
  return {left, ends, 0}
end
if lapsed then
  unclaim(member)
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
