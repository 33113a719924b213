#!lua flags=allow-oom
-- claim: takes members to delete: those that are due first, then those to retry. It skips members
-- that are being written. First it ends claims that have lapsed, as failed attempts: from then on each
-- of their members is claimed alone, and only when there is nothing else.
-- KEYS[12] returned, a SET: members whose claims ended while records move
-- ARGV     token, limit, lease, most attempts, shortest back-off, longest back-off, 1 if the caller
--          is deleting nothing else, or 0
-- Returns  {how many members could still be claimed, how late each is (doubles, little-endian),
--           length of each, all members joined, {those of them that wait for an owner}}: long strings,
--           because parsing a thousand short ones takes longer than deleting the files
-- Touches  all, returned
local token, limit, most, alone = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4]), ARGV[7] == '1'
local delay = backoff(tonumber(ARGV[5]), tonumber(ARGV[6]))
local taken, late, passed, left_behind = {}, {}, {}, {}

local function no_delay()
  return 0
end

local function lapse(member, by_itself)
  local _, state = note(member)
  put_back(member)
  if state == RESERVED or state == EXCUSED then
    return unclaim(member)
  end
  local reason = 'its deletion did not end in time, or ended the process that tried it'
  count_attempt(member, most, by_itself and delay or no_delay, SUSPECT, reason)
end

local function over(zset)
  return redis.call('ZRANGE', zset, '-inf', exact(now), 'BYSCORE', 'LIMIT', 0, 100)
end

for _, lease in ipairs(over(leases)) do
  local write, member = lease:match('^(%x+)%z(.*)$')
  if write then
    end_write(member, write)
  else
    local members = redis.call('ZRANGE', claimed, lease, lease, 'BYSCORE')
    for _, of_claim in ipairs(members) do
      lapse(of_claim, #members == 1)
    end
    redis.call('ZREM', leases, lease)
  end
end

local writes = redis.call('EXISTS', writing) == 1
local count = 0  -- of those taken: the operator # looks for the end each time
local function take(zset)
  local first, before, found = 0, count
  repeat
    local asked = limit - count
    found = redis.call('ZRANGE', zset, '-inf', exact(now), 'BYSCORE', 'LIMIT', first, asked, 'WITHSCORES')
    first = first + asked
    for i = 1, #found, 2 do
      local member, at = found[i], found[i + 1]
      if not writes or redis.call('HEXISTS', writing, member) == 0 then
        count = count + 1
        taken[count], late[count] = member, struct.pack('<d', now - at)
        passed[2 * count - 1], passed[2 * count] = at, member
      end
    end
  until count >= limit or #found < 2 * asked
  if count > before then
    left_behind[zset] = {unpack(taken, before + 1)}
  end
end

if score(leases, token) then -- the reply to the first call was lost
  taken = redis.call('ZRANGE', claimed, token, token, 'BYSCORE')
  for i, member in ipairs(taken) do
    late[i] = struct.pack('<d', now - deadline_of(member))
  end
elseif limit > 0 then
  take(due)
  in_slices(passed, 'ZADD', deadlines)
  take(retries)
  if alone and count == 0 and redis.call('EXISTS', suspects) == 1 then
    limit = 1
    take(suspects)
  end
  local claims = {}
  for i, member in ipairs(taken) do
    claims[2 * i - 1], claims[2 * i] = token, member
  end
  in_slices(claims, 'ZADD', claimed)
  if #taken > 0 then
    redis.call('ZADD', leases, exact(now + ARGV[3]), token)
  end
  for zset, members in pairs(left_behind) do  -- last: a script that a broken key stops undoes nothing
    if writes then
      in_slices(members, 'ZREM', zset)
    else  -- then they come first, so there is no need to find them among millions
      redis.call('ZREMRANGEBYRANK', zset, 0, #members - 1)
    end
  end
end
local left = 0
if #taken >= limit then
  for _, zset in ipairs({due, retries, suspects}) do
    left = left + redis.call('ZCOUNT', zset, '-inf', exact(now))
  end
  left = math.max(0, left - redis.call('HLEN', writing))
end
local lengths = {}
for i, member in ipairs(taken) do
  lengths[i] = #member
end
local waiting = {}
if redis.call('EXISTS', owners) == 1 then
  for _, member in ipairs(taken) do
    if awaits_owner(member) then
      waiting[#waiting + 1] = member
    end
  end
end
return {left, table.concat(late), table.concat(lengths, ' '), table.concat(taken), waiting}
