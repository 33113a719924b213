#!lua flags=allow-oom
-- reserve: claims a member, whatever its deadline, for a writer who removes or replaces its file.
-- ARGV     end of a lease known to be over or 0, member, token, lease
-- Returns  {time left of a live claim that forbids this or 0, end of its lease or 0,
--           1 if a claim had lapsed, deadline or 0, 1 if it is permanent or 0,
--           1 if a row owns it or 0, 1 if it waits for one or 0}
-- Touches  all but writing
local over, member, token = ARGV[1], ARGV[2], ARGV[3]
local kept = is_permanent(member) and 1 or 0
local awaits = awaits_owner(member) and 1 or 0
local is_owned = awaits == 0 and redis.call('HEXISTS', owners, member) or 0
if score(claimed, member) == tonumber(token) then -- the reply to the first call was lost
  return {0, 0, 0, deadline_of(member) or 0, kept, is_owned, awaits}
end
local left, ends, lapsed = claim_on(member, over)
if left > 0 then
  return {left, ends, 0, 0, 0, 0, 0}
end
if lapsed then
  unclaim(member)
end
local deadline, attempts = deadline_of(member), note(member)
forget(member)
if deadline then
  redis.call('ZADD', deadlines, exact(deadline), member)
end
mark(member, attempts, RESERVED)
redis.call('ZADD', claimed, token, member)
redis.call('ZADD', leases, exact(now + ARGV[4]), token)
return {0, 0, lapsed and 1 or 0, deadline or 0, kept, is_owned, awaits}
