-- Stands behind the first line of every verb; of the functions, those that it calls.
--
-- KEYS, the same four for each verb, all in the slot of one shard:
--   due       ZSET  member -> deadline
--   claimed   ZSET  member -> end of the lease, which is the claim's token too
--   attempts  HASH  member -> how often its deletion has failed
--   failed    HASH  member -> why it was set aside, as JSON
-- Every time is in microseconds since the epoch by this server's clock.
local due, claimed, attempts, failed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

-- tostring() keeps 14 digits, a deadline has 16.
local function exact(number)
  return string.format('%.0f', number)
end

local function score(zset, member)
  return tonumber(redis.call('ZSCORE', zset, member) or nil)
end

-- Time left of the live claim on a member, 0 where there is none.
local function busy(member)
  local ends = score(claimed, member)
  return ends and ends > now and ends - now or 0
end

local function forget_all_but_deadline(member)
  redis.call('ZREM', claimed, member)
  redis.call('HDEL', attempts, member)
  redis.call('HDEL', failed, member)
end

local function forget(member)
  redis.call('ZREM', due, member)
  forget_all_but_deadline(member)
end

-- Of a deletion that failed, that never ended or was given up it is only known that it has passed;
-- what waits in `due` for its next attempt is no deadline.
local function known_deadline(member)
  local deadline = score(due, member)
  if deadline and (deadline <= now or redis.call('HEXISTS', attempts, member) == 0) then
    return deadline
  end
  if deadline or score(claimed, member) or redis.call('HEXISTS', failed, member) == 1 then
    return now
  end
end

-- The end of a lease that no other claim has, even where the clock was set back.
local function new_token(lease)
  local token = now + lease
  while redis.call('ZCOUNT', claimed, exact(token), exact(token)) > 0 do
    token = token + 1
  end
  return token
end

local function set_deadline(member, deadline)
  redis.call('ZADD', due, exact(deadline), member)
end

-- Calls a command for slices of a list: unpack() takes some 8,000 values at the most.
local function in_slices(list, command, key)
  for first = 1, #list, 2000 do
    redis.call(command, key, unpack(list, first, math.min(first + 1999, #list)))
  end
end
