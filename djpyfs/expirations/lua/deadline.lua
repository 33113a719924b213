#!lua flags=no-writes
-- deadline: reads the deadlines of members.
-- ARGV     member...
-- Returns  {now, deadline or 0...}
-- Touches  nothing
local reply = {now}
for i = 1, #ARGV do
  reply[i + 1] = deadline_of(ARGV[i]) or 0
end
return reply
