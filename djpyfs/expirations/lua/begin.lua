#!lua
-- begin: records that a member is being written, so its deadline waits until the write is done. With
-- a default ttl, a member that has no deadline and is not permanent gets one, which only writes made.
-- ARGV     end of a lease known to be over or 0, member, token, lease, default ttl or 0
-- Returns  {time left of a live claim that forbids this or 0, end of its lease or 0,
--           1 if a claim had lapsed, deadline that others have given it or 0,
--           1 if that has passed, 1 if it is permanent}
-- Touches  all but failed
local over, member, token, default_ttl = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[5])
local left, ends, lapsed = claim_on(member, over)
if left > 0 then
  return {left, ends, 0, 0, 0, 0}
end
if lapsed then
  unclaim(member)
end
local writes = redis.call('HGET', writing, member) or ''
local provisional = writes:sub(1, 1) == 'p'
local before = not provisional and deadline_of(member)
local kept = is_permanent(member)
local unknown = not (provisional or before) and not kept
if unknown and default_ttl > 0 then
  set_deadline(member, now + default_ttl)
  writes = 'p ' .. writes
end
redis.call('HSET', writing, member, writes .. ' ' .. token)
redis.call('ZADD', leases, exact(now + ARGV[4]), token .. '\0' .. member)
local overdue = before and before <= now
return {0, 0, lapsed and 1 or 0, before or 0, overdue and 1 or 0, kept and 1 or 0}
