#!lua flags=allow-oom
-- depart: takes the records of members out of their shard, to move them to another. A copy stays
-- in transit until it has been delivered. What is claimed stays, with its whole record.
-- KEYS[12]  returned, a SET: members whose claims ended while records move
-- KEYS[13]  revocations, a HASH: member -> the last revocation of the links to it
-- KEYS[14]  in transit, a HASH: member -> its record, as arrive.lua takes it
-- ARGV      end of a lease known to be over or 0, or -1 to leave lapsed claims as well; member...
-- Returns   {now, and for each member:
--            {1, 1 if a claim had lapsed, its record or ''}, or
--            {0, time left of the live claim on it or 0, end of its lease or 0, its token,
--             deadline or 0, 1 if it is permanent, revocation or ''}}
-- Touches   all, revocations, in transit
local over, revocations, transit = ARGV[1], KEYS[13], KEYS[14]
local returned = KEYS[12]

local function claimed_for(member)
  local token, left, ends, lapsed = score(claimed, member), 0, 0, false
  if token and over == '-1' then
    return exact(token), 0, 0, false
  end
  if token then
    left, ends, lapsed = claim_on(member, over)
    if lapsed then
      unclaim(member)
    end
  end
  return left > 0 and exact(token), left, ends, lapsed
end

-- Takes the record out of this shard, and returns it by the names of the keys; nil if there is none.
local function pack_up(member)
  local parcel = {}
  for name, zset in pairs({due = due, retries = retries, suspects = suspects, deadlines = deadlines, notes = notes}) do
    parcel[name] = redis.call('ZSCORE', zset, member) or nil
  end
  for name, hash in pairs({failed = failed, writing = writing, owners = owners, revocations = revocations}) do
    parcel[name] = redis.call('HGET', hash, member) or nil
  end
  if redis.call('SREM', permanent, member) == 1 then
    parcel.permanent = '1'
  end
  if parcel.writing then
    parcel.leases = {}
    for token in parcel.writing:gmatch('%x+') do
      local lease = token .. '\0' .. member
      parcel.leases[lease] = redis.call('ZSCORE', leases, lease) or nil
      redis.call('ZREM', leases, lease)
    end
  end
  forget(member)
  for _, hash in ipairs({writing, owners, revocations}) do
    redis.call('HDEL', hash, member)
  end
  return next(parcel) and cmsgpack.pack(parcel)
end

local reply = {now}
for i = 2, #ARGV do
  local member = ARGV[i]
  local token, left, ends, lapsed = claimed_for(member)
  if token then
    local revocation = redis.call('HGET', revocations, member) or ''
    local kept = is_permanent(member) and 1 or 0
    reply[i] = {0, left, ends, token, deadline_of(member) or 0, kept, revocation}
  else
    local parcel = pack_up(member)
    if parcel then
      redis.call('HSET', transit, member, parcel)
    end
    redis.call('SREM', returned, member)
    reply[i] = {1, lapsed and 1 or 0, parcel or redis.call('HGET', transit, member) or ''}
  end
end
return reply
