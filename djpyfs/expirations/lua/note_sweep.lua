#!lua
-- note_sweep: adds the report of one part of a sweep to the entry of that sweep.
-- KEYS[1]  the last sweeps, a STREAM: id of the sweep, and its report as JSON
-- KEYS[2]  totals, a HASH: name of a number -> its value
-- ARGV     id of the sweep, report, how many sweeps to keep, how many of the last to look through,
--          (name, growth)...
-- Returns  the report of the sweep so far
-- Touches  the sweeps, totals
local sweeps, id, report = KEYS[1], ARGV[1], cjson.decode(ARGV[2])
local now_ms = math.floor(now / 1000)
for _, entry in ipairs(redis.call('XREVRANGE', sweeps, '+', '-', 'COUNT', ARGV[4])) do
  local at, fields = tonumber(entry[1]:match('^%d+')), entry[2]
  if fields[2] == id then
    local before = cjson.decode(fields[4])
    for name, number in pairs(before) do
      if name == 'duration' then
        report[name] = math.max(report[name], (now_ms - at) / 1000 + number)
      elseif name == 'lag' then
        report[name] = math.max(report[name], number)
      elseif name ~= 'remaining' and name ~= 'unreachable' then
        report[name] = (report[name] or 0) + number
      end
    end
    redis.call('XDEL', sweeps, entry[1])
    break
  end
end
for i = 5, #ARGV, 2 do
  redis.call('HINCRBYFLOAT', KEYS[2], ARGV[i], ARGV[i + 1])
end
local whole = cjson.encode(report)
redis.call('XADD', sweeps, 'MAXLEN', '~', ARGV[3], '*', 'sweep', id, 'report', whole)
return whole
