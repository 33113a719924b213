#!lua flags=allow-oom
-- fail: counts a failed attempt for each member that is still claimed under this token.
-- KEYS[12] returned, a SET: members whose claims ended while records move
-- KEYS[13] totals, a HASH: name of a number -> its value
-- ARGV     token, most attempts, shortest back-off, longest back-off, (member, reason)...
-- Returns  {how many it put back, how many it set aside}
-- Touches  retries, claimed, deadlines, leases, notes, failed, totals, returned
local token, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local delay = backoff(tonumber(ARGV[3]), tonumber(ARGV[4]))
local tried, set_aside = 0, 0
for i = 5, #ARGV, 2 do
  if score(claimed, ARGV[i]) == token then
    tried = tried + 1
    put_back(ARGV[i])
    set_aside = set_aside + count_attempt(ARGV[i], most, delay, RETRIED, ARGV[i + 1])
  end
end
end_lease(ARGV[1])
redis.pcall('HINCRBYFLOAT', KEYS[13], 'retried', tried - set_aside)
redis.pcall('HINCRBYFLOAT', KEYS[13], 'set_aside', set_aside)
return {tried - set_aside, set_aside}
