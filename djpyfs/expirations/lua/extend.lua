#!lua flags=allow-oom
-- extend: lets leases last on, of claims and of writes.
-- ARGV     (lease, time from now)...
-- Returns  those of the leases that are over
-- Touches  leases
local gone = {}
for i = 1, #ARGV, 2 do
  local ends = score(leases, ARGV[i])
  if ends and ends > now then
    redis.call('ZADD', leases, exact(now + ARGV[i + 1]), ARGV[i])
  else
    gone[#gone + 1] = ARGV[i]
  end
end
return gone
