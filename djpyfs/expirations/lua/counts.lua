#!lua flags=no-writes
-- counts: how many records there are of which kind.
-- Returns  {now, tracked, overdue, claimed and not lapsed, set aside, time since the oldest deadline
--           that has passed or 0}; of a lapsed claim only the end of its lease is known
-- Touches  nothing
local waiting, late = redis.call('ZCARD', due), redis.call('ZCOUNT', due, '-inf', exact(now))
local taken, lapsed = redis.call('ZCARD', claimed), redis.call('ZCOUNT', claimed, '-inf', exact(now))
local oldest = now
for _, zset in ipairs({due, claimed}) do
  local first = redis.call('ZRANGE', zset, 0, 0, 'WITHSCORES')
  oldest = math.min(oldest, tonumber(first[2] or now))
end
return {now, waiting + taken, late + lapsed, taken - lapsed, redis.call('HLEN', failed), now - oldest}
