-- uses: keys, time, record
-- Under memory pressure: drop logs and results of the oldest completed tasks, a bounded step. The records
-- stay. `meta.bare` remembers how far that has come, by finish time.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  leave those alone that finished less than this many ms ago   ARGV[2] at most this many (1…200)
-- Returns  how many were looked at; 0: there is nothing left to strip
local set, bare = P .. 'completed', call('HGET', META, 'bare') or '-inf'
local ids = call('ZRANGEBYSCORE', set, '(' .. bare, integer(now - tonumber(ARGV[1])), 'WITHSCORES',
  'LIMIT', 0, ARGV[2])
if #ids == 0 then return 0 end
for index = 1, #ids, 2 do
  call('UNLINK', P .. 'h:' .. ids[index], P .. 'l:' .. ids[index])
end
-- Others that finished in the same millisecond as the last one are passed over: they go with their records.
call('HSET', META, 'bare', integer(tonumber(ids[#ids])))
return #ids / 2
