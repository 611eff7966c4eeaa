-- Fragment: the clock. `now` is Redis TIME in whole milliseconds, never behind what this queue has seen,
-- except after a step back of more than 5 s: clamping that too would freeze every lease.
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local last_seen = tonumber(call('HGET', META, 't') or 0)
if now < last_seen and last_seen - now <= 5000 then now = last_seen end

-- Remember `now`. A script calls it only once it has written something (a ZREM first): as a first write,
-- HSET is refused at maxmemory.
local function stamp()
  if now ~= last_seen then call('HSET', META, 't', string.format('%.0f', now)) end
end
