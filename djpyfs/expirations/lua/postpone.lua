#!lua flags=allow-oom
-- postpone: puts members back without counting an attempt, if they are still claimed under this
-- token; if none are given, all that are.
-- KEYS[12] returned, a SET: members whose claims ended while records move
-- ARGV     token, delay, state or 0 for due, member...
-- Returns  how many it put back
-- Touches  due, retries, claimed, deadlines, leases, notes, returned
local token, delay, state, postponed = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), 0
local members = {unpack(ARGV, 4)}
if #members == 0 then
  members = redis.call('ZRANGE', claimed, ARGV[1], ARGV[1], 'BYSCORE')
end
for _, member in ipairs(members) do
  if score(claimed, member) == token then
    postponed = postponed + 1
    put_back(member)
    if state == 0 then
      unclaim(member)
    else
      redis.call('ZREM', claimed, member)
      redis.call('ZADD', retries, exact(now + delay), member)
      mark(member, (note(member)), state)
    end
  end
end
end_lease(ARGV[1])
return postponed
