#!lua flags=allow-oom
-- take_back: makes members that were set aside due now, or forgets them.
-- ARGV     1 to make them due or 0 to forget them, member...
-- Returns  the members that were set aside
-- Touches  due, failed, owners
local taken = {}
for i = 2, #ARGV do
  local deadline = redis.call('HEXISTS', failed, ARGV[i]) == 1 and deadline_of(ARGV[i])
  if deadline then
    taken[#taken + 1] = ARGV[i]
    redis.call('HDEL', failed, ARGV[i])
    if ARGV[1] == '1' then
      set_deadline(ARGV[i], deadline)
    else
      redis.call('HDEL', owners, ARGV[i])
    end
  end
end
return taken
