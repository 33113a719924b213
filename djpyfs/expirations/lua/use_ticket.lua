#!lua flags=allow-oom
-- use_ticket: takes one use of a ticket, or none, to see whether there is one left. A ticket that
-- is not there has none: should Redis lose it, its link works too seldom and never too often.
-- KEYS[1]  the ticket, a STRING that expires: uses left, and the name of the last that was taken
-- ARGV     for how many ms it is there from now on at least, a name that only this use has, for it is
--          asked for again where a reply was lost; or none
-- Returns  1 where there was one left, or the use is taken already, else 0; nil where it is not there
-- Touches  the ticket
local hold, use = tonumber(ARGV[1]), ARGV[2]
local known = redis.call('GET', KEYS[1])
if not known then
  return false
end
if hold > 0 then
  redis.call('PEXPIRE', KEYS[1], hold, 'GT')
end
local left, last = string.match(known, '^(%d+) ?(.*)$')
if use and use == last then
  return 1
end
if left == '0' then
  return 0
end
if use then
  redis.call('SET', KEYS[1], string.format('%d %s', left - 1, use), 'KEEPTTL')
end
return 1
