#!lua flags=allow-oom
-- use_ticket: takes one use of a ticket, or only asks whether one is left. A missing ticket has none:
-- if Redis loses it, its link works too seldom, never too often.
-- KEYS[1]  the ticket, a STRING that expires: uses left, and the name of the last use
-- ARGV     ms for which to keep the ticket at least, and the unique name of this use, by which a retry
--          after a lost reply is known; without a name nothing is taken
-- Returns  1 if a use was left or this one is taken already, else 0; nil if there is no ticket
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
