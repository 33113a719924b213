#!lua flags=no-writes
-- counts: counts the records of each kind.
-- Returns  {now, tracked, overdue and not claimed, claimed and not lapsed, set aside,
--           time since the oldest deadline that has passed or 0, and of those tracked: to be retried,
--           on hold, postponed}
-- Touches  nothing
local late = redis.call('ZCOUNT', due, '-inf', exact(now))
local again = redis.call('ZCARD', retries) + redis.call('ZCARD', suspects)
local taken, lapsed, oldest = redis.call('ZCARD', claimed), 0, now
for _, lease in ipairs(redis.call('ZRANGE', leases, '-inf', exact(now), 'BYSCORE')) do
  if not lease:find('%z') then
    lapsed = lapsed + redis.call('ZCOUNT', claimed, lease, lease)
  end
end
for _, zset in ipairs({due, deadlines}) do
  local first = redis.call('ZRANGE', zset, 0, 0, 'WITHSCORES')
  oldest = math.min(oldest, tonumber(first[2] or now))
end
local function noted(state)
  return redis.call('ZCOUNT', notes, state * 1000000, '(' .. (state + 1) * 1000000)
end
local waiting = redis.call('ZCARD', due) + again
return {
  now, waiting + taken, late + again + lapsed, taken - lapsed, redis.call('HLEN', failed), now - oldest,
  noted(RETRIED) + noted(SUSPECT), noted(HELD), noted(POSTPONED),
}
