#!lua flags=allow-oom
-- release: ends the claim on a reserved member, which then has a new deadline, its old one, or no
-- record; in the last case it is no longer permanent either.
-- KEYS[12] returned, a SET: members whose claims ended while records move
-- ARGV     member, token, deadline (0: no record, -1: its old one)
-- Returns  nothing
-- Touches  all, returned
local member, token, deadline = ARGV[1], ARGV[2], tonumber(ARGV[3])
if score(claimed, member) ~= tonumber(token) then
  return
end
put_back(member)
if deadline < 0 then
  unclaim(member)
else
  forget(member)
  redis.call('SREM', permanent, member)
  redis.call('HDEL', owners, member)
  confirm(member)
  if deadline > 0 then
    set_deadline(member, deadline)
  end
end
end_lease(token)
