-- A verb runs behind the prelude (see djpyfs/expirations/scripts.py), so it knows the prelude's locals.
std = "lua51"
read_globals = {"redis", "cjson", "cmsgpack", "struct", "KEYS"}
globals = {"ARGV"}  -- the prelude takes its own argument off the end
max_line_length = 120

local prelude = "djpyfs/expirations/lua/prelude.lua"
for line in io.lines(prelude) do
  local names = line:match("^local function ([%w_]+)") or line:match("^local ([%w_, ]+) =") or ""
  for name in names:gmatch("[%w_]+") do
    table.insert(read_globals, name)
  end
end
files[prelude] = {ignore = {"211"}, read_globals = {}}
