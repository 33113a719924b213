#!lua flags=allow-oom
-- claim_one: takes one member, if it is due; early, whenever there is a record of it.
-- ARGV     member, lease, 0 or, for early, a number up to 65535 that tells this call from others:
--          it stands in the last 16 bits of the token, so that a call whose reply was lost can be
--          repeated
-- Returns  {time left of the live claim that forbids it or 0, token or 0, time until it is due or 0,
--           deadline or 0}
-- Touches  due, claimed, failed
local member, lease, call = ARGV[1], ARGV[2], tonumber(ARGV[3])
local early, left = call > 0, busy(member)
if left > 0 and early and score(claimed, member) % 65536 == call then
  return {0, score(claimed, member), 0, now}
elseif left > 0 then
  return {left, 0, 0, 0}
end
local deadline = known_deadline(member)
if not early and redis.call('HEXISTS', failed, member) == 1 then
  deadline = nil
end
local wait = math.max(0, (score(due, member) or now) - now)
if not deadline or (wait > 0 and not early) then
  return {0, 0, wait, deadline or 0}
end
local token = new_token(early and lease - (now + lease - call) % 65536 or lease)
redis.call('ZREM', due, member)
redis.call('HDEL', failed, member)
redis.call('ZADD', claimed, exact(token), member)
return {0, token, wait, deadline}
