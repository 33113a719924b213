#!lua flags=allow-oom
-- acknowledge: forgets the members that are still claimed under exactly this token; if none are
-- given, all that are.
-- ARGV     token, member...
-- Returns  how many it forgot
-- Touches  claimed, deadlines, leases, notes, owners
local token, done = tonumber(ARGV[1]), {}
if #ARGV == 1 then
  done = redis.call('ZRANGE', claimed, ARGV[1], ARGV[1], 'BYSCORE')
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
in_slices(done, 'ZREM', deadlines)
if redis.call('EXISTS', notes) == 1 then
  in_slices(done, 'ZREM', notes)
end
if redis.call('EXISTS', owners) == 1 then
  in_slices(done, 'HDEL', owners)
end
end_lease(ARGV[1])
return #done
