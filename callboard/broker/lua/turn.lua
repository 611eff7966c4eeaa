-- uses: keys, time, record, fair, event, wake, park, history, ending, logs, finishing, claiming
-- One turn of a worker: record what is done, then claim what is next. Due tasks are promoted on the way.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  events "FULL:KEEP"   ARGV[2] worker   ARGV[3] claim nonce   ARGV[4] tasks wanted (0…64)
-- ARGV[5]  lease in ms          ARGV[6…] operations (finishing.lua)
-- Returns  {answers, claimed, next_due_ms (-1 none), queued left, paused (0|1)}
local answers, changed = {}, false
if #ARGV > 5 then answers, changed = apply_operations(6) end
local want = tonumber(ARGV[4])
local claimed, moved, promoted = {}, 0, 0
if want > 0 then
  promoted = promote(50)
  claimed, moved = claim(ARGV[2], ARGV[3], want, tonumber(ARGV[5]))
end
fair_flush()
local left = call('ZCARD', QUEUED)
local paused = head[2] and 1 or 0
if changed or moved + promoted > 0 then
  stamp()
  if left > 0 and paused == 0 then wake() end
end
return { answers, claimed, next_due(), left, paused }
