#!lua flags=allow-oom
-- extend: extends the leases of claims and of writes. A new write begins with its lease, unless its
-- member is claimed.
-- ARGV     (lease, time from now, 1 for a new write)...
-- Returns  the leases that are over
-- Touches  leases, writing
local function begin(lease)
  local token, member = lease:match('^(%x+)%z(.*)$')
  if score(claimed, member) then
    return false
  end
  redis.call('HSET', writing, member, (redis.call('HGET', writing, member) or '') .. ' ' .. token)
  return true
end

local gone = {}
for i = 1, #ARGV, 3 do
  local ends = score(leases, ARGV[i])
  local begins = not ends and ARGV[i + 2] == '1' and begin(ARGV[i])
  if begins or ends and ends > now then
    redis.call('ZADD', leases, exact(now + ARGV[i + 1]), ARGV[i])
  else
    gone[#gone + 1] = ARGV[i]
  end
end
return gone
