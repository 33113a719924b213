#!lua
-- await_owner: lets a member that has a deadline be deleted only if no row owns it, and not before
-- now + ttl. Once a row owns it, it lives for `life` from now.
-- ARGV     end of a lease known to be over or 0, member, ttl, life
--          (0: endless; -1: a member that already waits for an owner keeps its life, and any other
--          is only noted as owned, with the deadline that it has)
-- Returns  {time left of a live claim that forbids this or 0, end of its lease or 0,
--           1 if a claim had lapsed}
-- Touches  all
local over, member, ttl, life = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local left, ends, lapsed = claim_on(member, over)
if left > 0 then
  return {left, ends, 0}
end
if lapsed then
  unclaim(member)
end
local deadline, known = deadline_of(member), redis.call('HGET', owners, member)
if deadline and life < 0 and not awaits_owner(member) then
  redis.call('HSET', owners, member, '=' .. exact(deadline))
elseif deadline then
  forget(member)
  confirm(member)
  set_deadline(member, math.max(deadline, now + ttl))
  local owned = life < 0 and known:sub(2) or life > 0 and exact(now + life) or '0'
  redis.call('HSET', owners, member, '+' .. owned)
end
return {0, 0, lapsed and 1 or 0}
