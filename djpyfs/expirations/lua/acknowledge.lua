#!lua flags=allow-oom
-- acknowledge: forgets those members that are still claimed under exactly this token; without
-- members, all that are.
-- ARGV     token, member...
-- Returns  how many that were
-- Touches  claimed, attempts
local token, done = tonumber(ARGV[1]), {}
if #ARGV == 1 then
  if redis.call('EXISTS', attempts) == 1 then
    in_slices(redis.call('ZRANGE', claimed, ARGV[1], ARGV[1], 'BYSCORE'), 'HDEL', attempts)
  end
  return redis.call('ZREMRANGEBYSCORE', claimed, ARGV[1], ARGV[1])
end
for first = 2, #ARGV, 2000 do
  local last = math.min(first + 1999, #ARGV)
  local scores = redis.call('ZMSCORE', claimed, unpack(ARGV, first, last))
  for i = first, last do
    if tonumber(scores[i - first + 1] or nil) == token then
      done[#done + 1] = ARGV[i]
    end
  end
end
in_slices(done, 'ZREM', claimed)
in_slices(done, 'HDEL', attempts)
return #done
