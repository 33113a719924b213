#!lua flags=no-writes
-- next_due: tells when there is something to claim, or a lease lapses. Like `claim`, it skips overdue
-- members that are being written.
-- Returns  {now, that time or nil, how many members can be claimed now}
-- Touches  nothing
local writes = redis.call('EXISTS', writing) == 1
local next_due = false
for _, zset in ipairs({due, retries, suspects, leases}) do
  local i, member, at = 0
  repeat
    local found = redis.call('ZRANGE', zset, i, i, 'WITHSCORES')
    i, member, at = i + 1, found[1], tonumber(found[2])
  until not member or at > now or not writes or redis.call('HEXISTS', writing, member) == 0
  if at and not (next_due and next_due <= at) then
    next_due = at
  end
end
local overdue = 0
if next_due and next_due <= now then
  for _, zset in ipairs({due, retries, suspects}) do
    overdue = overdue + redis.call('ZCOUNT', zset, '-inf', exact(now))
  end
  overdue = math.max(0, overdue - redis.call('HLEN', writing))
end
return {now, next_due, overdue}
