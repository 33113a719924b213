#!lua flags=allow-oom
-- release: ends the claim on a reserved member. It has a new deadline then, or the one that it had,
-- or no record: then it is not permanent any more either.
-- KEYS[12] returned, a SET: members that were claimed while records move
-- ARGV     member, token, deadline, or 0 for no record, or -1 for the one that it had
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
