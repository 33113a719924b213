#!lua flags=allow-oom
-- use_ticket: takes one use of a ticket, or none, to see whether there is one left. A ticket that
-- is not there has none: should Redis lose it, its link works too seldom and never too often.
-- KEYS[11]  the ticket, a STRING that expires: uses left
-- ARGV     uses, 0 or 1
-- Returns  how many were left before
-- Touches  the ticket
local left = tonumber(redis.call('GET', KEYS[11]) or 0)
if left > 0 and ARGV[1] == '1' then
  redis.call('DECR', KEYS[11])
end
return left
