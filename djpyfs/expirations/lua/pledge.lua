#!lua flags=allow-oom
-- pledge: sets the deadline, or none, that a reserved member has if its claim lapses.
-- ARGV     member, token, deadline or 0
-- Returns  1, or 0 if the claim is over
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
