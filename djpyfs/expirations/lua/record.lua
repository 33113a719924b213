#!lua flags=no-writes
-- record: reads all that decides when a member goes.
-- ARGV     member
-- Returns  {deadline if it is merely due, deadline if it is not, why it was set aside as JSON,
--           token of a claim, note}, each or ''
-- Touches  nothing
local member = ARGV[1]
local function known(zset)
  return redis.call('ZSCORE', zset, member) or ''
end
return {
  known(due), known(deadlines), redis.call('HGET', failed, member) or '', known(claimed), known(notes),
}
