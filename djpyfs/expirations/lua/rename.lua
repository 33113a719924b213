#!lua
-- rename: carries the deadline of one member over to another of the same shard.
-- ARGV     source, destination, deadline that the source shall have then, or 0 for none
-- Returns  {time left of a live claim that forbids it or 0, deadline carried or 0,
--           deadline that the destination had or 0}
-- Touches  due, claimed, attempts, failed
local source, destination, remaining = ARGV[1], ARGV[2], tonumber(ARGV[3])
local left = math.max(busy(source), busy(destination))
if left > 0 then
  return {left, 0, 0}
end
local carried, replaced = known_deadline(source), known_deadline(destination)
forget(destination)
forget(source)
if carried then
  set_deadline(destination, carried)
end
if remaining > 0 then
  set_deadline(source, remaining)
end
return {0, carried or 0, replaced or 0}
