-- uses: keys
-- Outbox items that have arrived at their target.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1…] members
-- Returns  how many were still there
local gone = call('ZREM', P .. 'outbox', unpack(ARGV))
for _, member in ipairs(ARGV) do call('UNLINK', P .. 'o:' .. member) end
return gone
