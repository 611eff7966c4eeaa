-- uses: keys, time, record, removing
-- Delete one terminal task.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  id
-- Returns  {"missing" | "ok" | "conflict", state}
local id = ARGV[1]
local m = read(id)
if m == nil then return { call('EXISTS', P .. 't:' .. id) == 1 and 'ok' or 'missing', '' } end
local state = m and m[STATE] or 'failed'
if not TERMINAL[state] then return { 'conflict', state } end
call('ZREM', P .. state, id)
remove(id)
call('SET', P .. 't:' .. id, '1', 'PX', TOMBSTONE_MS)
return { 'ok', state }
