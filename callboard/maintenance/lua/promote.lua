-- uses: keys, time, record, fair, event, wake, history, ending, claiming
-- Due tasks: pending -> queued, at most 50 a call.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  events "FULL:KEEP"
-- Returns  {promoted, next_due_ms (-1 none)}
local moved = promote(50)
if moved > 0 then
  fair_flush()
  stamp()
  wake()
end
return { moved, next_due() }
