#!lua flags=no-writes
-- waiting: whether there is anything to claim, or a lease that has lapsed.
-- Returns  1 or 0
-- Touches  nothing
for _, zset in ipairs({due, retries, suspects, leases}) do
  local first = redis.call('ZRANGE', zset, 0, 0, 'WITHSCORES')
  if first[2] and tonumber(first[2]) <= now then
    return 1
  end
end
return 0
