-- uses: keys, time, record, fair, event, wake, history, ending
-- Retry by hand: failed or cancelled -> queued, with the same id. Attempts go on counting.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  events "FULL:KEEP"   ARGV[2] id   ARGV[3] nonce of this request (a resend is a no-op)
-- ARGV[4]  attempts to grant on top of those used (-1 endless)
-- Returns  {"missing" | "ok" | "conflict", state}; conflict too where there is nothing left to run
local id, nonce = ARGV[2], ARGV[3]
local m = read(id)
if m == nil then return { 'missing', '' } end
if m == false then return { 'conflict', 'failed' } end
local state = m[STATE]
if m[REPLAY] == nonce then return { 'ok', state } end
local buried = m[MAX_ATTEMPTS] == 0 or call('EXISTS', P .. 'i:' .. id) == 0
if (state ~= 'failed' and state ~= 'cancelled') or buried then
  return { 'conflict', state }
end
call('ZREM', P .. state, id)
-- The finished attempt is in the history; one that was cancelled before it started has none.
m[REPLAY] = nonce
m[FINISHED], m[CANCEL], m[TERMINATE], m[LOSSES], m[MISSES], m[EXPIRES] = 0, 0, 0, 0, 0, 0
m[PROGRESS], m[OPTIONS] = '', ''
if m[MAX_ATTEMPTS] >= 0 then
  local granted = tonumber(ARGV[4])
  m[MAX_ATTEMPTS] = granted < 0 and -1 or math.max(m[MAX_ATTEMPTS], m[ATTEMPT] + granted)
end
enter_queued(id, m)
write(id, m)
fair_flush()
stamp()
event('q', id, m)
wake()
return { 'ok', 'queued' }
