#!lua
-- schedule: gives members the deadline now + ttl and forgets whatever else was known of them.
-- ARGV     ttl, member...
-- Returns  the deadline; where live claims forbid some of the members:
--          {time left of the longest live claim, deadline, member left alone...}
-- Touches  due, claimed, attempts, failed
local deadline, longest, left_alone = now + ARGV[1], 0, {}
for i = 2, #ARGV do
  local left = busy(ARGV[i])
  if left > 0 then
    longest = math.max(longest, left)
    left_alone[#left_alone + 1] = ARGV[i]
  else
    forget_all_but_deadline(ARGV[i])
    set_deadline(ARGV[i], deadline)
  end
end
return longest == 0 and deadline or {longest, deadline, unpack(left_alone)}
