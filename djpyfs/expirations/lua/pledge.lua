#!lua flags=allow-oom
-- pledge: gives a reserved member another deadline, or none, should its claim lapse.
-- ARGV     member, token, deadline or 0
-- Returns  1, or 0 where the claim is over
-- Touches  deadlines, notes, writing
local member, deadline = ARGV[1], ARGV[3]
if score(claimed, member) ~= tonumber(ARGV[2]) then
  return 0
end
confirm(member)
mark(member, 0, RESERVED)
if tonumber(deadline) > 0 then
  redis.call('ZADD', deadlines, deadline, member)
else
  redis.call('ZREM', deadlines, member)
end
return 1
