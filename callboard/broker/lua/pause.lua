-- uses: keys, time, record, event, wake
-- Pause or resume a queue: a paused queue accepts tasks and lets the running end, but nothing is claimed.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  events "FULL:KEEP"   ARGV[2] "1" to pause, "0" to resume
-- Returns  1 if that changed anything, else 0
local was = call('HDEL', META, 'paused')
local paused = ARGV[2] == '1'
if paused then call('HSET', META, 'paused', NOW) end
if (was == 1) == paused then return 0 end
local m = blank('', '')
m[STATE], m[REASON] = paused and 'paused' or 'running', paused and 'paused' or 'resumed'
event('Q', '', m)
if not paused then wake() end
return 1
