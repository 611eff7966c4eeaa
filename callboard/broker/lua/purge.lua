-- uses: keys, time, record, fair, event, removing
-- Drop tasks of one state that is not `running`, records and all: a bounded step, called until none is left.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  events "FULL:KEEP"   ARGV[2] state   ARGV[3] at most (1…200)
-- ARGV[4]  where the step before stopped ("" in the first one). Only tasks created until the first step are
--          dropped, so that a purge under load ends; younger ones that stand before them are passed over.
-- Returns  {dropped, looked at, what to send with the next step}
local state = ARGV[2]
local before, skip = string.match(ARGV[4], '^(%d+):(%d+)$')
before, skip = tonumber(before) or now, tonumber(skip) or 0
if not TERMINAL[state] and state ~= 'pending' and state ~= 'queued' then
  return redis.error_reply('CALLBOARD ' .. state .. ' tasks cannot be purged')
end
local ids = call('ZRANGE', P .. state, skip, skip + tonumber(ARGV[3]) - 1)
local dropped = 0
for _, id in ipairs(ids) do
  local m = read(id)
  if not m or m[CREATED] <= before then
    if state == 'queued' and not m then fair_abandon(id) end
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
return { dropped, #ids, integer(before) .. ':' .. integer(skip + #ids - dropped) }
