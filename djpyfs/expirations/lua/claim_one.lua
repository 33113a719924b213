#!lua flags=allow-oom
-- claim_one: takes one member, if it is due. Claims that have lapsed are left to `claim`.
-- ARGV     member, token, lease
-- Returns  {1 if it is claimed, how late it is, time until it is due or 0,
--           1 if it waits for an owner}
-- Touches  due, retries, suspects, claimed, deadlines, leases
local member, token = ARGV[1], ARGV[2]
if score(claimed, member) == tonumber(token) then -- the reply to the first call was lost
  return {1, now - deadline_of(member), 0, awaits_owner(member) and 1 or 0}
end
if score(claimed, member) or redis.call('HEXISTS', writing, member) == 1 then
  return {0, 0, 0, 0}
end
local waits_for = score(due, member) or score(retries, member) or score(suspects, member)
if not waits_for or waits_for > now then
  return {0, 0, (waits_for or now) - now, 0}
end
redis.call('ZADD', deadlines, exact(deadline_of(member)), member)
for _, zset in ipairs({due, retries, suspects}) do
  redis.call('ZREM', zset, member)
end
redis.call('ZADD', claimed, token, member)
redis.call('ZADD', leases, exact(now + ARGV[3]), token)
return {1, now - waits_for, 0, awaits_owner(member) and 1 or 0}
