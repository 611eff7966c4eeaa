-- Say that entries of the catalog are still in use, and hear which must be published again: those that
-- are gone, and those of other code that nobody has touched for a while (its workers have ended).
--
-- KEYS[1]  the catalog, see publish.lua
-- ARGV[1]  that while, ms; then pairs of field, digest (at most 100)
-- Returns  the fields to publish again
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local wanted = {}
redis.call('HDEL', KEYS[1], '#') -- see publish.lua
for i = 2, #ARGV, 2 do
  local entry = redis.call('HGET', KEYS[1], ARGV[i])
  local published, seen, digest, rest
  if entry then published, seen, digest, rest = entry:match('^(%d+) (%d+) (%S+) (.*)$') end
  if digest == ARGV[i + 1] then
    redis.call('HSET', KEYS[1], ARGV[i], table.concat({ published, string.format('%.0f', now), digest, rest }, ' '))
  elseif not seen or now - tonumber(seen) > tonumber(ARGV[1]) then
    wanted[#wanted + 1] = ARGV[i]
  end
end
return wanted
