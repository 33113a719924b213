#!lua flags=allow-oom
-- claim: takes members to delete, those of lapsed claims first, then those that are due.
-- ARGV     limit, lease
-- Returns  {token, members still overdue, how late each is (doubles, little-endian), member...}
-- Touches  due, claimed
local limit, token = tonumber(ARGV[1]), exact(new_token(ARGV[2]))
local reply, late, claims = {token, 0, ''}, {}, {}

local function take(found)
  for i = 1, #found, 2 do
    late[#late + 1] = struct.pack('<d', now - found[i + 1])
    reply[#reply + 1] = found[i]
    claims[#claims + 1] = token
    claims[#claims + 1] = found[i]
  end
  return #found / 2
end

local function overdue(zset, count)
  return redis.call('ZRANGE', zset, '-inf', exact(now), 'BYSCORE', 'LIMIT', 0, count, 'WITHSCORES')
end

local lapsed = take(overdue(claimed, limit))
if lapsed < limit then
  local fresh = take(overdue(due, limit - lapsed))
  if fresh > 0 then
    redis.call('ZREMRANGEBYRANK', due, 0, fresh - 1)
  end
end
in_slices(claims, 'ZADD', claimed)
if #late == limit then
  reply[2] = redis.call('ZCOUNT', due, '-inf', exact(now)) + redis.call('ZCOUNT', claimed, '-inf', exact(now))
end
reply[3] = table.concat(late)
return reply
