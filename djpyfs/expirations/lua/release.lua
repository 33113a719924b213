#!lua flags=allow-oom
-- release: takes members that were set aside back, to be deleted now, or forgets them.
-- ARGV     1 to have them due now or 0 to forget them, member...
-- Returns  those of the members that were set aside
-- Touches  due, failed
local released = {}
for i = 2, #ARGV do
  if redis.call('HDEL', failed, ARGV[i]) == 1 then
    released[#released + 1] = ARGV[i]
    if ARGV[1] == '1' then
      set_deadline(ARGV[i], now)
    end
  end
end
return released
