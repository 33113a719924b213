#!lua
-- carry: gives a member the deadline of another of the same shard, which keeps it as well. Where
-- that one has none, nothing changes.
-- ARGV     source, destination
-- Returns  {time left of a live claim that forbids it or 0, deadline carried or 0,
--           deadline that the destination had or 0}
-- Touches  due, claimed, attempts, failed
local source, destination = ARGV[1], ARGV[2]
local left = math.max(busy(source), busy(destination))
if left > 0 then
  return {left, 0, 0}
end
local carried, replaced = known_deadline(source), known_deadline(destination)
if carried then
  for _, member in ipairs({source, destination}) do
    forget_all_but_deadline(member)
    set_deadline(member, carried)
  end
end
return {0, carried or 0, replaced or 0}
