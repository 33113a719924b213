#!lua
-- schedule: gives members the deadline now + ttl and forgets all else about them.
-- ARGV     end of a lease known to be over or 0, ttl, member...
-- Returns  the deadline; if some of the members are claimed:
--          {time left of the longest live claim or 0, end of its lease or 0, deadline,
--           how many members were left alone, those members..., members of lapsed claims...}
-- Touches  all
--
-- As long as there are only deadlines, there is nothing to look up and forget.
local quiet = redis.call('EXISTS', claimed, deadlines, failed, writing, permanent, owners) == 0
local over, deadline = ARGV[1], now + ARGV[2]
local at = exact(deadline)
if quiet and #ARGV == 3 then -- what a view does; the rest below would cost a quarter more
  redis.call('ZADD', due, at, ARGV[3])
  return deadline
end
local longest, latest, left_alone, lapsed, fresh = 0, 0, {}, {}, {}
for i = 3, #ARGV do
  local member = ARGV[i]
  local left, ends, has_lapsed = 0, 0, false
  if not quiet then
    left, ends, has_lapsed = claim_on(member, over)
  end
  if left > 0 then
    longest, latest = math.max(longest, left), math.max(latest, ends)
    left_alone[#left_alone + 1] = member
  else
    if not quiet then
      forget(member)
      confirm(member)
      redis.call('HDEL', owners, member)
      redis.call('SREM', permanent, member)
    end
    if has_lapsed then
      lapsed[#lapsed + 1] = member
    end
    fresh[#fresh + 1] = at
    fresh[#fresh + 1] = member
  end
end
in_slices(fresh, 'ZADD', due)
if longest == 0 and #lapsed == 0 then
  return deadline
end
local reply = {longest, latest, deadline, #left_alone}
for _, list in ipairs({left_alone, lapsed}) do
  for _, member in ipairs(list) do
    reply[#reply + 1] = member
  end
end
return reply
