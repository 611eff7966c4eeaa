-- Compare and set one entry of the timetable: a definition, or how far its firings have come.
--
-- KEYS[1]  the timetable: hash of schedule id -> JSON; "#" counts the changes of definitions
-- ARGV[1]  id   ARGV[2] the entry as it was read ("" for none)   ARGV[3] the entry to write ("" to delete)
-- ARGV[4]  "1" when a definition changes
-- Returns  1 when it is written now or was by this same call before, 0 when the entry is another by now
local now = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if now == ARGV[3] then return 1 end
if now ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1]) -- a first write that works at maxmemory
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
if ARGV[4] == '1' then redis.call('HINCRBY', KEYS[1], '#', 1) end
return 1
