#!lua flags=no-writes
-- deadline: reads members' deadlines. That of a deletion that failed has passed, whenever it is
-- tried again.
-- ARGV     member...
-- Returns  {now, deadline or 0...}
-- Touches  nothing
local reply = {now}
for i = 1, #ARGV do
  local deadline = known_deadline(ARGV[i]) or 0
  if deadline > now and redis.call('HEXISTS', attempts, ARGV[i]) == 1 then
    deadline = now
  end
  reply[i + 1] = deadline
end
return reply
