#!lua flags=allow-oom
-- abandon: records that a write has failed, and forgets a record that only writes have made.
-- ARGV     member, token
-- Returns  nothing
-- Touches  due, deadlines, leases, writing
local member = ARGV[1]
local _, provisional, others = end_write(member, ARGV[2])
if provisional and others == 0 then
  -- Not its claim: somebody may be removing or replacing the file.
  redis.call('ZREM', due, member)
  redis.call('ZREM', deadlines, member)
end
