#!lua
-- schedule: gives members the deadline now + ttl and forgets whatever else was known of them.
-- ARGV     ttl, member...
-- Returns  the deadline; where live claims forbid some of the members:
--          {time left of the longest live claim, deadline, member left alone...}
-- Touches  due, claimed, attempts, failed
--
-- As long as nothing has failed and no sweep is at work, there is nothing to look up and forget.
local quiet = redis.call('EXISTS', claimed, attempts, failed) == 0
local deadline, longest, left_alone = now + ARGV[1], 0, {}
for i = 2, #ARGV do
  local member = ARGV[i]
  local left = quiet and 0 or busy(member)
  if left > 0 then
    longest = math.max(longest, left)
    left_alone[#left_alone + 1] = member
  else
    set_deadline(member, deadline)
    if not quiet then
      forget_all_but_deadline(member)
    end
  end
end
return longest == 0 and deadline or {longest, deadline, unpack(left_alone)}
