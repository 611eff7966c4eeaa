-- uses: keys, time, record
-- Under memory pressure: drop logs and results of the oldest completed tasks, a bounded step. The records
-- stay. `meta.bare` remembers how far that has come, by finish time.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  leave those alone that finished less than this many ms ago   ARGV[2] at most this many (1…200)
-- Returns  how many were looked at; 0: there is nothing left to strip
local set, bare = P .. 'completed', call('HGET', META, 'bare') or '-inf'
local ids = call('ZRANGEBYSCORE', set, '(' .. bare, integer(now - tonumber(ARGV[1])), 'LIMIT', 0, ARGV[2])
if #ids == 0 then return 0 end
local last = integer(tonumber(call('ZSCORE', set, ids[#ids])))
local before = call('ZCOUNT', set, '(' .. bare, '(' .. last)
-- A group of finishes shares a millisecond: the mark must not pass over those that the limit cut off.
local twins = call('ZRANGEBYSCORE', set, last, last, 'LIMIT', 0, 1000)
for index = 1, before do call('UNLINK', P .. 'h:' .. ids[index], P .. 'l:' .. ids[index]) end
for _, id in ipairs(twins) do call('UNLINK', P .. 'h:' .. id, P .. 'l:' .. id) end
call('HSET', META, 'bare', last)
return before + #twins
