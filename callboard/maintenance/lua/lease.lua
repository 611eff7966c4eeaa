-- uses: keys, time, record
-- A maintenance loop's lease: one holder at a time for each loop of a queue.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  loop   ARGV[2] holder   ARGV[3] ms to hold it (0: let go)
-- Returns  1 when the holder has it, else 0
local set, mine = P .. 'loops', ARGV[1] .. ' ' .. ARGV[2]
local holders = call('ZRANGE', set, 0, -1, 'WITHSCORES')
for index = 1, #holders, 2 do
  local held = holders[index]
  if string.sub(held, 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then
    if held ~= mine and tonumber(holders[index + 1]) > now then return 0 end
    call('ZREM', set, held)
  end
end
if ARGV[3] == '0' then return 0 end
call('ZREM', set, mine) -- a first write that works at maxmemory, also where nobody held the lease
call('ZADD', set, integer(now + tonumber(ARGV[3])), mine)
return 1
