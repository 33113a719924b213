#!lua flags=allow-oom
-- fail: puts members whose deletion has failed back into `due` after a back-off that doubles with
-- each attempt, or sets them aside after the last. Only those still claimed under this token.
-- KEYS[5]  totals, a HASH: name of a number -> its value
-- ARGV     token, attempts at the most, shortest back-off, longest back-off, (member, reason)...
-- Returns  {put back, set aside}
-- Touches  due, claimed, attempts, failed, totals
local token, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local shortest, longest = tonumber(ARGV[3]), tonumber(ARGV[4])
local retried, set_aside = 0, 0
math.randomseed(now % 2147483647)
for i = 5, #ARGV, 2 do
  local member, reason = ARGV[i], ARGV[i + 1]
  if score(claimed, member) == token then
    redis.call('ZREM', claimed, member)
    local count = redis.call('HINCRBY', attempts, member, 1)
    if count >= most then
      redis.call('HDEL', attempts, member)
      local why = {reason = reason, attempts = count, at = math.floor(now / 1000000)}
      redis.call('HSET', failed, member, cjson.encode(why))
      set_aside = set_aside + 1
    else
      -- Jitter between half and all of it, so that what failed together is not retried together.
      local backoff = math.min(longest, shortest * 2 ^ (count - 1)) * (0.5 + math.random() / 2)
      set_deadline(member, now + backoff)
      retried = retried + 1
    end
  end
end
redis.pcall('HINCRBYFLOAT', KEYS[5], 'retried', retried)
redis.pcall('HINCRBYFLOAT', KEYS[5], 'set_aside', set_aside)
return {retried, set_aside}
