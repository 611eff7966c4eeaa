-- uses: keys, time, record, fair, event, removing
-- Drop tasks of one state that is not `running`, records and all: a bounded step, called until none is left.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  events "FULL:KEEP"   ARGV[2] state   ARGV[3] at most (1…200)
-- ARGV[4]  only those created until this time in ms ("" in the first step: now), so that a purge under load ends
-- Returns  {dropped, looked at, the time to send with the next step}
local state, before = ARGV[2], tonumber(ARGV[4]) or now
if state == 'running' then return redis.error_reply('CALLBOARD running tasks cannot be purged') end
local ids = call('ZRANGE', P .. state, 0, tonumber(ARGV[3]) - 1)
local dropped = 0
for _, id in ipairs(ids) do
  local m = read(id)
  if not m or m[CREATED] <= before then
    call('ZREM', P .. state, id)
    if state == 'queued' then
      call('ZREM', AGE, id)
      if m then fair_leave(m) end
    end
    remove(id)
    dropped = dropped + 1
  end
end
if dropped > 0 then
  fair_flush()
  stamp()
end
return { dropped, #ids, integer(before) }
