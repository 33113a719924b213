#!lua flags=allow-oom
-- postpone: puts members back into `due` that may not be deleted yet, without counting an attempt.
-- They stay marked as overdue. Only those still claimed under this token.
-- ARGV     token, delay, member...
-- Returns  how many that were
-- Touches  due, claimed, attempts
local token, postponed = tonumber(ARGV[1]), 0
for i = 3, #ARGV do
  if score(claimed, ARGV[i]) == token then
    redis.call('ZREM', claimed, ARGV[i])
    redis.call('HSETNX', attempts, ARGV[i], 0)
    set_deadline(ARGV[i], now + ARGV[2])
    postponed = postponed + 1
  end
end
return postponed
