-- uses: keys, time, record, fair, event, wake, history, ending, logs, finishing, claiming
-- One turn of a worker: record what is done, then claim what is next. Due tasks are promoted on the way.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  events "FULL:KEEP"   ARGV[2] worker   ARGV[3] claim nonce   ARGV[4] tasks wanted (0…64)
-- ARGV[5]  lease in ms          ARGV[6…] operations (finishing.lua)
-- Returns  {answers, claimed, next_due_ms (-1 none), queued left, paused (0|1)}
local answers = {}
for index = 6, #ARGV do answers[#answers + 1] = settle(ARGV[index]) end
tally_flush()
local want = tonumber(ARGV[4])
local claimed = {}
if want > 0 then
  promote(50)
  claimed = claim(ARGV[2], ARGV[3], want, tonumber(ARGV[5]))
end
fair_flush()
local left = call('ZCARD', QUEUED)
if #answers > 0 or #claimed > 0 then stamp() end
local paused = call('HEXISTS', META, 'paused')
if left > 0 and paused == 0 and (#claimed > 0 or want == 0) then wake() end
return { answers, claimed, next_due(), left, paused }
