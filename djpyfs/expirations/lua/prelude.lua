-- Goes behind the first line of every verb, with only the functions that the verb calls.
--
-- KEYS, all in the slot of one shard. The verbs for the records of a place begin with these, and their
-- own come from KEYS[12] on. Every other verb lists all its keys: there the names below stand for
-- something else, so it uses none of them, and no function that does.
--   due        ZSET  member -> deadline, of members that no sweep has claimed yet
--   retries    ZSET  member -> when to retry its deletion
--   suspects   ZSET  member -> the same, of members that may kill their sweeper and are claimed alone
--   claimed    ZSET  member -> token of the claim under which it is deleted or replaced
--   deadlines  ZSET  member -> deadline, of members in `retries`, `suspects` or `claimed`
--   leases     ZSET  token of a claim, or token NUL member of a write -> end of its lease
--   notes      ZSET  member -> 1,000,000 * state + attempts, so that ZCOUNT counts each state; not of
--                    members that are merely due, or claimed because of that
--   failed     HASH  member -> why it was set aside, as JSON
--   writing    HASH  member -> tokens of the writes to it, after a "p" if only they made the record
--   permanent  SET   members that somebody has made permanent by hand
--   owners     HASH  member -> the deadline that it has if a row owns it, or 0 for none, after a sign:
--                    "+" waits for its first owner, "-" was let go by one: both are deleted only if
--                    no row owns them. "=" has an owner, as far as is known.
--                    A deadline or permanence set by hand removes the member from here
-- Behind the verb's own keys, the last one says which shards members are in (layout.py):
--   format     STRING
-- The last of ARGV is the layout that the caller believes in.
-- Every time is in microseconds since the epoch, by this server's clock.
local believed = ARGV[#ARGV]
ARGV[#ARGV] = nil
local layout = redis.call('GET', KEYS[#KEYS]) or ''  -- of a shard that is new, or has lost it
if layout ~= believed then
  return redis.error_reply('LAYOUT ' .. layout)
end
local due, retries, claimed, deadlines = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local leases, notes, failed, writing, permanent = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local suspects, owners = KEYS[10], KEYS[11]
local RETRIED, HELD, POSTPONED, SUSPECT, RESERVED, EXCUSED = 1, 2, 3, 4, 5, 6
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

-- tostring() keeps 14 digits, a deadline has 16.
local function exact(number)
  return string.format('%.0f', number)
end

local function score(zset, member)
  return tonumber(redis.call('ZSCORE', zset, member) or nil)
end

-- Returns how many attempts have failed, and the state of a member that is more than due.
local function note(member)
  local number = score(notes, member) or 0
  return number % 1000000, math.floor(number / 1000000)
end

local function mark(member, attempts, state)
  redis.call('ZADD', notes, state * 1000000 + attempts, member)
end

local function deadline_of(member)
  local deadline = score(due, member) or score(deadlines, member)
  if deadline then
    return deadline
  end
  local why = redis.call('HGET', failed, member)
  return why and tonumber(cjson.decode(why).deadline)
end

-- Returns for the claim on a member: time left, end of its lease, and whether it has lapsed (a sweep
-- may have ended it already). One that the caller knows to be over has lapsed, whatever the clock says.
local function claim_on(member, over)
  local token = score(claimed, member)
  if not token then
    local _, state = note(member)
    return 0, 0, state == SUSPECT
  end
  local ends = score(leases, exact(token)) or 0
  if ends > now and ends ~= tonumber(over) then
    return ends - now, ends, false
  end
  -- It stays lapsed even if the clock is set back, so that its holder cannot extend it.
  redis.call('ZADD', leases, 'XX', 0, exact(token))
  return 0, 0, true
end

-- Returns whether somebody, or its row, has made a member permanent.
local function is_permanent(member)
  return redis.call('SISMEMBER', permanent, member) == 1 or redis.call('HGET', owners, member) == '=0'
end

-- Returns whether a member is deleted only if no row owns it.
local function awaits_owner(member)
  return (redis.call('HGET', owners, member) or '='):sub(1, 1) ~= '='
end

local function set_deadline(member, deadline)
  redis.call('SREM', permanent, member)
  if redis.call('HGET', owners, member) == '=0' then
    redis.call('HDEL', owners, member)
  end
  redis.call('ZADD', due, exact(deadline), member)
end

-- Forgets the record, but not its writes, its owner, or that it is permanent.
local function forget(member)
  for _, zset in ipairs({due, retries, suspects, claimed, deadlines, notes}) do
    redis.call('ZREM', zset, member)
  end
  redis.call('HDEL', failed, member)
end

-- Ends the claim on a member, if there is one, without counting an attempt.
local function unclaim(member)
  local deadline, attempts = score(deadlines, member), note(member)
  if redis.call('ZREM', claimed, member) == 0 then
    return
  end
  if deadline and attempts > 0 then
    redis.call('ZADD', retries, exact(now), member)
    mark(member, attempts, RETRIED)
    return
  end
  redis.call('ZREM', deadlines, member)
  redis.call('ZREM', notes, member)
  if deadline then
    set_deadline(member, deadline)
  end
end

-- Notes that a member is back from a claim: a pass through the keys of a shard that must be emptied
-- might have missed it in both places.
local function put_back(member)
  local from, to = believed:match(' (%d+) (%d+)$')
  if from ~= to then
    redis.call('SADD', KEYS[12], member)
  end
end

-- Ends a lease once no member is claimed under it.
local function end_lease(token)
  if redis.call('ZCOUNT', claimed, token, token) == 0 then
    redis.call('ZREM', leases, token)
  end
end

-- Counts a failed attempt: the member is retried after the delay, or set aside after the last one.
-- Returns how many were set aside, 0 or 1.
local function count_attempt(member, most, delay_after, state, reason)
  local attempts = note(member) + 1
  redis.call('ZREM', claimed, member)
  if attempts < most then
    local again = state == SUSPECT and suspects or retries
    redis.call('ZADD', again, exact(now + delay_after(attempts)), member)
    mark(member, attempts, state)
    return 0
  end
  local deadline = exact(score(deadlines, member) or now)
  local at = math.floor(now / 1000000)
  redis.call('ZREM', deadlines, member)
  redis.call('ZREM', notes, member)
  redis.call('HSET', failed, member, cjson.encode({reason = reason, attempts = attempts, at = at, deadline = deadline}))
  return 1
end

-- Returns a delay that doubles with each attempt, less a random part of up to half of it, so that
-- members that failed together are not retried together.
local function backoff(shortest, longest)
  math.randomseed(now % 2147483647)
  return function(attempts)
    return math.min(longest, shortest * 2 ^ (attempts - 1)) * (0.5 + math.random() / 2)
  end
end

-- Removes a write from those of its member. Returns whether it was there, whether only writes have
-- made the record, and how many writes are left.
local function end_write(member, token)
  local found, provisional, others = false, false, {}
  redis.call('ZREM', leases, token .. '\0' .. member)
  for word in (redis.call('HGET', writing, member) or ''):gmatch('%S+') do
    if word == token then
      found = true
    elseif word == 'p' then
      provisional = true
    else
      others[#others + 1] = word
    end
  end
  if #others == 0 then
    redis.call('HDEL', writing, member)
  else
    redis.call('HSET', writing, member, (provisional and 'p ' or '') .. table.concat(others, ' '))
  end
  return found, provisional, #others
end

-- Makes a record outlast the writes that made it.
local function confirm(member)
  local writes = redis.call('HGET', writing, member)
  if writes and writes:sub(1, 2) == 'p ' then
    redis.call('HSET', writing, member, writes:sub(3))
  end
end

-- Calls a command for slices of a list, because unpack() takes no more than some 8,000 values.
local function in_slices(list, command, key)
  for first = 1, #list, 2000 do
    redis.call(command, key, unpack(list, first, math.min(first + 1999, #list)))
  end
end
