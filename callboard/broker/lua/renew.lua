-- uses: keys, time, record
-- Renew leases: running stays running, also when the lease has expired and nobody rescued the task.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  lease in ms   ARGV[2…] pairs id, token (at most 100 pairs)
-- Returns  per pair "ok", "cancel", "terminate" (asked for while it runs) or "lost"
local answers = {}
for index = 2, #ARGV, 2 do
  local id, token = ARGV[index], ARGV[index + 1]
  local m = read(id)
  if not m or m[STATE] ~= 'running' or m[TOKEN] ~= token then
    answers[#answers + 1] = 'lost'
  else
    call('ZREM', RUNNING, id)
    call('ZADD', RUNNING, integer(now + tonumber(ARGV[1])), id)
    if m[CANCEL] == 0 then
      answers[#answers + 1] = 'ok'
    else
      answers[#answers + 1] = m[TERMINATE] == 1 and 'terminate' or 'cancel'
    end
  end
end
return answers
