#!lua flags=no-writes
-- kept: tells which members are permanent, by hand or because a row owns them.
-- ARGV     member...
-- Returns  {1 or 0...}
-- Touches  nothing
local kept = redis.call('SMISMEMBER', permanent, unpack(ARGV))
for i, fate in ipairs(redis.call('HMGET', owners, unpack(ARGV))) do
  if fate == '=0' then
    kept[i] = 1
  end
end
return kept
