#!lua flags=allow-oom
-- reserve_free: claims members, whatever their deadlines, for a writer who removes their files. It
-- leaves alone those that are claimed, or whose record holds more than a deadline.
-- ARGV     token, lease, member...
-- Returns  the members that it left alone
-- Touches  due, claimed, deadlines, leases, notes
local token, left_alone, claims, marks, found, passed = ARGV[1], {}, {}, {}, {}, {}
for first = 3, #ARGV, 2000 do
  local members = {unpack(ARGV, first, math.min(first + 1999, #ARGV))}
  local tokens = redis.call('ZMSCORE', claimed, unpack(members))
  local given_up = redis.call('HMGET', failed, unpack(members))
  local waiting = redis.call('ZMSCORE', due, unpack(members))
  local passing = redis.call('ZMSCORE', deadlines, unpack(members))
  for i, member in ipairs(members) do
    if not (tokens[i] or passing[i] or given_up[i]) then
      claims[#claims + 1], claims[#claims + 2] = token, member
      marks[#marks + 1], marks[#marks + 2] = RESERVED * 1000000, member
      if waiting[i] then
        found[#found + 1] = member
        passed[#passed + 1], passed[#passed + 2] = waiting[i], member
      end
    elseif tonumber(tokens[i] or nil) ~= tonumber(token) then -- else the reply to the first call was lost
      left_alone[#left_alone + 1] = member
    end
  end
end
in_slices(passed, 'ZADD', deadlines)
in_slices(marks, 'ZADD', notes)
in_slices(claims, 'ZADD', claimed)
if #claims > 0 then
  redis.call('ZADD', leases, exact(now + ARGV[2]), token)
end
in_slices(found, 'ZREM', due) -- last: a script that a broken key stops undoes nothing
return left_alone
