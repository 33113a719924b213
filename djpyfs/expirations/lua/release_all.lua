#!lua flags=allow-oom
-- release_all: ends the claims on all that is reserved under a token. The records go if their files
-- are gone; otherwise they are as before.
-- KEYS[12] returned, a SET: members whose claims ended while records move
-- ARGV     token, 1 if the files are gone or 0
-- Returns  nothing
-- Touches  due, claimed, deadlines, leases, notes, writing, permanent, owners, returned
local members = redis.call('ZRANGE', claimed, ARGV[1], ARGV[1], 'BYSCORE')
if ARGV[2] == '1' then
  for _, zset in ipairs({claimed, deadlines, notes}) do
    in_slices(members, 'ZREM', zset)
  end
  in_slices(members, 'SREM', permanent)
  in_slices(members, 'HDEL', owners)
end
local writes = redis.call('EXISTS', writing) == 1
for _, member in ipairs(members) do
  put_back(member)
  if ARGV[2] == '0' then
    unclaim(member)
  elseif writes then
    confirm(member)
  end
end
redis.call('ZREM', leases, ARGV[1])
