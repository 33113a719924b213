#!lua flags=allow-oom
-- abandon: notes that a write has come to nothing, and forgets a record that is only the writes'.
-- ARGV     member, token
-- Returns  nothing
-- Touches  due, deadlines, leases, writing
local member = ARGV[1]
local _, provisional, others = end_write(member, ARGV[2])
if provisional and others == 0 then
  -- Not the claim of somebody who removes or replaces the file meanwhile.
  redis.call('ZREM', due, member)
  redis.call('ZREM', deadlines, member)
end
