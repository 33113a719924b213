#!lua flags=allow-oom
-- excuse: lets claims lapse without counting an attempt, if they are still under this token.
-- ARGV     token, member...
-- Returns  nothing
-- Touches  notes
for i = 2, #ARGV do
  if score(claimed, ARGV[i]) == tonumber(ARGV[1]) then
    mark(ARGV[i], (note(ARGV[i])), EXCUSED)
  end
end
