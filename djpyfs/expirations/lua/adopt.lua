#!lua
-- adopt: gives a known deadline to members that have no record, are not permanent, and that nobody
-- is removing or replacing; or makes them permanent.
-- ARGV     (member, deadline or 0 for permanent)...
-- Returns  the members that took one
-- Touches  due, permanent, owners
local adopted = {}
for i = 1, #ARGV, 2 do
  local member = ARGV[i]
  local known = deadline_of(member) or score(claimed, member)
  if not known and not is_permanent(member) then
    if ARGV[i + 1] == '0' then
      redis.call('SADD', permanent, member)
    else
      set_deadline(member, ARGV[i + 1])
    end
    adopted[#adopted + 1] = member
  end
end
return adopted
