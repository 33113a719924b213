#!lua flags=allow-oom
-- tally: adds to the totals.
-- KEYS[1]  totals, a HASH: name of a number -> its value
-- ARGV     (name, growth)...
-- Returns  nothing
-- Touches  totals
for i = 1, #ARGV, 2 do
  -- A broken total must not stop a sweep.
  redis.pcall('HINCRBYFLOAT', KEYS[1], ARGV[i], ARGV[i + 1])
end
