-- uses: keys, time, record, fair, removing
-- Delete one terminal task, or one whose record cannot be decoded, wherever that stands.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  id
-- Returns  {"missing" | "ok" | "conflict", state}
local id = ARGV[1]
local m = read(id)
if m == nil then return { call('EXISTS', P .. 't:' .. id) == 1 and 'ok' or 'missing', '' } end
local state = m and m[STATE] or 'failed'
if not TERMINAL[state] then return { 'conflict', state } end
if m then
  call('ZREM', P .. state, id)
else
  fair_abandon(id)
  forsake(id)
end
remove(id)
fair_flush()
-- The tombstone names the enqueue call that a resend would repeat; another one is a new task.
call('SET', P .. 't:' .. id, m and m[NONCE] or '', 'PX', TOMBSTONE_MS)
return { 'ok', state }
