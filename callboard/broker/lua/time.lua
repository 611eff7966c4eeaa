-- Fragment: the clock. `now` is Redis TIME in whole milliseconds, never behind what this queue has seen,
-- except after a step back of more than 5 s: clamping that too would freeze every lease.
local function integer(number) return string.format('%d', number) end

local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
-- What nearly every script asks of `meta`, in one call: the default priority's fair tags come along.
local head = call('HMGET', META, 't', 'paused', 'v5', 's5')
local last_seen = tonumber(head[1] or 0)
if now < last_seen and last_seen - now <= 5000 then now = last_seen end
-- For scores: Redis would write a number with 17 digits and read it again.
local NOW = integer(now)

-- Remember `now`. A script calls it only once it has written something (a ZREM first): as a first write,
-- HSET is refused at maxmemory.
local function stamp()
  if now ~= last_seen then call('HSET', META, 't', NOW) end
end
