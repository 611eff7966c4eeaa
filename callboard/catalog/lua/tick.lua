-- What time it is, and whether a definition has changed.
--
-- KEYS[1]  the timetable, see swap.lua
-- Returns  {now in ms, changes so far}
local clock = redis.call('TIME')
return { clock[1] * 1000 + math.floor(clock[2] / 1000), tonumber(redis.call('HGET', KEYS[1], '#') or 0) }
