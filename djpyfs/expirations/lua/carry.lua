#!lua
-- carry: gives a member the deadline of another of the same shard, which keeps it as well; both are
-- due in the grace at the earliest. Where that one has none, nothing changes.
-- ARGV     source, destination, grace
-- Returns  {time left of a live claim that forbids it or 0, deadline of both or 0,
--           deadline that the source had or 0, deadline that the destination had or 0}
-- Touches  due, claimed, attempts, failed
local source, destination = ARGV[1], ARGV[2]
local left = math.max(busy(source), busy(destination))
if left > 0 then
  return {left, 0, 0, 0}
end
local had, replaced = known_deadline(source), known_deadline(destination)
local carried = had and math.max(had, now + ARGV[3])
if carried then
  for _, member in ipairs({source, destination}) do
    forget_all_but_deadline(member)
    set_deadline(member, carried)
  end
end
return {0, carried or 0, had or 0, replaced or 0}
