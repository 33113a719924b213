#!lua
-- pin: puts what is known of a member's deadline into `due`, whatever has become of its deletion,
-- so that it can be carried to another shard and be recognised here afterwards; it is due in the
-- grace at the earliest.
-- ARGV     member, grace
-- Returns  {time left of the live claim that forbids it or 0, deadline or 0, deadline before or 0}
-- Touches  due, claimed, attempts, failed
local member = ARGV[1]
local left = busy(member)
if left > 0 then
  return {left, 0, 0}
end
local had = known_deadline(member)
local deadline = had and math.max(had, now + ARGV[2])
if deadline then
  forget(member)
  set_deadline(member, deadline)
end
return {0, deadline or 0, had or 0}
