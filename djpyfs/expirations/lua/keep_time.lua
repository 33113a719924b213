#!lua flags=allow-oom
-- keep_time: takes the lease of the timekeeper of a place, or extends it, unless another has it.
-- KEYS[12]  the lease, a STRING that expires: who has it
-- ARGV     who asks, lease in ms or 0 to give it up
-- Returns  1 where the caller has it from now on, or 0
-- Touches  the lease
local holder, lease = redis.call('GET', KEYS[12]), ARGV[2]
if holder and holder ~= ARGV[1] then
  return 0
end
if lease == '0' then
  redis.call('DEL', KEYS[12])
  return 0
end
redis.call('SET', KEYS[12], ARGV[1], 'PX', lease)
return 1
