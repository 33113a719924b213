#!lua
-- adopt: gives deadlines that are known already to members of which there is no record.
-- ARGV     (member, deadline)...
-- Returns  those of the members of which there was none
-- Touches  due
local adopted = {}
for i = 1, #ARGV, 2 do
  if not known_deadline(ARGV[i]) then
    set_deadline(ARGV[i], ARGV[i + 1])
    adopted[#adopted + 1] = ARGV[i]
  end
end
return adopted
