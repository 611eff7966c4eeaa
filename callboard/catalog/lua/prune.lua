-- Drop entries of the catalog that nobody has touched for long.
--
-- KEYS[1]  the catalog, see publish.lua
-- ARGV[1]  how long, ms; then fields to look at (at most 100)
-- Returns  how many were dropped
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local dropped = 0
for i = 2, #ARGV do
  local entry = redis.call('HGET', KEYS[1], ARGV[i])
  local seen = entry and entry:match('^%d+ (%d+) ')
  if entry and (not seen or now - tonumber(seen) > tonumber(ARGV[1])) then
    dropped = dropped + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return dropped
