-- uses: keys, time, record, fair, event, wake, history, ending
-- Cancel: pending or queued -> cancelled at once; running gets the request, which its worker, a retry, a
-- release and a rescue all honour.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  events "FULL:KEEP"   ARGV[2] id   ARGV[3] "1" to terminate (kill the body) instead
-- Returns  {"missing" | "done" (now or already cancelled) | "asked" (it runs) | "conflict", state}
local id = ARGV[2]
local m = read(id)
if m == nil then return { 'missing', '' } end
if m == false then
  bury(id)
  fair_flush()
  stamp()
  return { 'conflict', 'failed' }
end
local state = m[STATE]
if state == 'cancelled' then return { 'done', state } end
if TERMINAL[state] then return { 'conflict', state } end
if state == 'running' then
  local lease = call('ZSCORE', RUNNING, id)
  call('ZREM', RUNNING, id)
  call('ZADD', RUNNING, lease or NOW, id)
  if m[CANCEL] == 0 then m[CANCEL] = now end
  if ARGV[3] == '1' then m[TERMINATE] = 1 end
  write(id, m)
  call('PUBLISH', P .. 'control:' .. m[WORKER],
    (m[TERMINATE] == 1 and 'terminate ' or 'cancel ') .. id .. ' ' .. m[TOKEN])
  return { 'asked', state }
end
call('ZREM', P .. state, id)
if state == 'queued' then
  call('ZREM', AGE, id)
  fair_leave(m)
end
m[CANCEL] = now
finish(id, m, 'cancelled', 'cancelled')
write(id, m)
fair_flush()
stamp()
event('x', id, m)
announce(id, m)
return { 'done', 'cancelled' }
