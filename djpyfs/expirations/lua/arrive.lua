#!lua flags=allow-oom
-- arrive: takes in records from another shard. A member that has already arrived is left as it is,
-- because much may have happened to it since.
-- KEYS[12]  revocations, a HASH: member -> the last revocation of the links to it
-- KEYS[13]  arrived, a SET: members that have arrived while records move
-- ARGV      (member, its record as depart.lua packs it)...
-- Returns   nothing
-- Touches   all but claimed, revocations, arrived
local zsets = {due = due, retries = retries, suspects = suspects, deadlines = deadlines, notes = notes}
local hashes = {failed = failed, writing = writing, owners = owners, revocations = KEYS[12]}
for i = 1, #ARGV, 2 do
  local member = ARGV[i]
  if redis.call('SADD', KEYS[13], member) == 1 then
    local parcel = cmsgpack.unpack(ARGV[i + 1])
    for name, zset in pairs(zsets) do
      if parcel[name] then
        redis.call('ZADD', zset, parcel[name], member)
      end
    end
    for name, hash in pairs(hashes) do
      if parcel[name] then
        redis.call('HSET', hash, member, parcel[name])
      end
    end
    if parcel.permanent then
      redis.call('SADD', permanent, member)
    end
    for lease, ends in pairs(parcel.leases or {}) do
      redis.call('ZADD', leases, ends, lease)
    end
  end
end
