#!lua flags=allow-oom
-- tidy: forgets what was noted while records moved.
-- KEYS     what to delete
-- Returns  nothing
-- Touches  these
for i = 1, #KEYS - 1 do
  redis.call('UNLINK', KEYS[i])
end
