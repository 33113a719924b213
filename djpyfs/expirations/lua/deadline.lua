#!lua flags=no-writes
-- deadline: reads a member's deadline.
-- ARGV     member
-- Returns  {now, deadline, or 0 where there is none}
-- Touches  nothing
return {now, known_deadline(ARGV[1]) or 0}
