-- Fragment: `l:ID`, the task's log: a version byte and msgpack entries {at, attempt, level, message} one
-- after another. Bounded by lines and bytes; what does not fit is counted, not kept: LOG_LINES goes on.
local LOG_MAX_LINES, LOG_MAX_BYTES = 1000, 262144 -- inline

-- `first` is the number of the first line within the attempt, from 1: lines up to LOG_SEQ came already.
local function log_append(id, m, first, lines)
  local fresh = {}
  for index, line in ipairs(lines) do
    local number = first + index - 1
    if number > m[LOG_SEQ] then
      m[LOG_SEQ], m[LOG_LINES] = number, m[LOG_LINES] + 1
      if m[LOG_LINES] <= LOG_MAX_LINES and m[LOG_BYTES] + #line <= LOG_MAX_BYTES then
        m[LOG_BYTES] = m[LOG_BYTES] + #line
        fresh[#fresh + 1] = line
      end
    end
  end
  if #fresh > 0 and events_full ~= '1' then
    local text = table.concat(fresh)
    if call('EXISTS', P .. 'l:' .. id) == 0 then text = RECORD_VERSION .. text end
    call('APPEND', P .. 'l:' .. id, text)
    return true
  end
  return false
end
