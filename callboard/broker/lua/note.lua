-- uses: keys, time, record, event, logs
-- Progress and log lines of running tasks. Fenced by token; the state does not change.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  events "FULL:KEEP"   ARGV[2…] msgpack arrays {id, token, progress ('' none), progress_seq,
--          first_line, lines}: lines is an array of packed entries {at, attempt, level, message}
-- Returns  per item "ok" or "lost"
local answers = {}
for index = 2, #ARGV do
  local item = cmsgpack.unpack(ARGV[index])
  local id, m = item[1], read(item[1])
  if not m or m[STATE] ~= 'running' or m[TOKEN] ~= item[2] then
    answers[#answers + 1] = 'lost'
  else
    local changed = false
    if item[3] ~= '' and item[4] > m[PROGRESS_SEQ] then
      m[PROGRESS], m[PROGRESS_SEQ], changed = item[3], item[4], true
      event('p', id, m, item[3])
    end
    if #item[6] > 0 then
      local before = m[LOG_SEQ]
      if log_append(id, m, item[5], item[6]) then event('l', id, m, integer(m[LOG_LINES])) end
      changed = changed or m[LOG_SEQ] ~= before
    end
    if changed then write(id, m) end
    answers[#answers + 1] = 'ok'
  end
end
return answers
