#!lua
-- pin: puts what is known of a member's deadline into `due`, whatever has become of its deletion,
-- so that it can be carried to another shard and be recognised here afterwards.
-- ARGV     member
-- Returns  {time left of the live claim that forbids it or 0, deadline or 0}
-- Touches  due, claimed, attempts, failed
local member = ARGV[1]
local left = busy(member)
if left > 0 then
  return {left, 0}
end
local deadline = known_deadline(member)
if deadline then
  forget(member)
  set_deadline(member, deadline)
end
return {0, deadline or 0}
