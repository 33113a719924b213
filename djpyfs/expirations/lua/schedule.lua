#!lua
-- schedule: gives members the deadline now + ttl and forgets whatever else was known of them.
-- ARGV     ttl, member...
-- Returns  {time left of the longest live claim or 0, deadline, members left alone for a live claim...}
-- Touches  due, claimed, attempts, failed
local deadline = now + ARGV[1]
local reply = {0, deadline}
for i = 2, #ARGV do
  local left = busy(ARGV[i])
  if left > 0 then
    reply[1] = math.max(reply[1], left)
    reply[#reply + 1] = ARGV[i]
  else
    forget(ARGV[i])
    set_deadline(ARGV[i], deadline)
  end
end
return reply
