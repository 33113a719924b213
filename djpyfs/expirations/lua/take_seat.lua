#!lua flags=allow-oom
-- take_seat: takes one of a few seats, or extends its lease, unless others have them all.
-- KEYS[1]  the seats, a ZSET: holder -> end of its lease
-- ARGV     who asks, lease in ms or 0 to give the seat up, how many seats there are
-- Returns  who holds a seat from now on
-- Touches  the seats
local seats, name, lease = KEYS[1], ARGV[1], tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', seats, '-inf', exact(now))
if lease == 0 then
  redis.call('ZREM', seats, name)
elseif score(seats, name) or redis.call('ZCARD', seats) < tonumber(ARGV[3]) then
  redis.call('ZADD', seats, exact(now + 1000 * lease), name)
end
return redis.call('ZRANGE', seats, 0, -1)
