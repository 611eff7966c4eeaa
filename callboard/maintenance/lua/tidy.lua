-- uses: keys
-- Fairness keys that hold no place any more: none queued, and served no further than the priority's clock
-- (fair.lua). One bounded step through the hash. Where a key may count one too many (`g`), a key whose tail the
-- clock has passed goes too, whatever it counts: its next tag is the clock's with it or without.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  priority   ARGV[2] cursor, "0" to begin
-- Returns  {next cursor ("0": the hash is done), dropped}
local hash = P .. 'fair:' .. ARGV[1]
local head = call('HMGET', META, 'v' .. ARGV[1], 'g' .. ARGV[1])
local v, miscounted = tonumber(head[1] or 0), head[2]
if miscounted and call('EXISTS', hash) == 0 then call('HDEL', META, 'g' .. ARGV[1]) end
local scan = call('HSCAN', hash, ARGV[2], 'COUNT', 100)
local dropped = 0
for index = 1, #scan[2], 2 do
  local tail, served, n = string.match(scan[2][index + 1], '^(%d+) (%d+) (%d+)$')
  if (n == '0' or miscounted and tonumber(tail) <= v) and tonumber(served) <= v then
    dropped = dropped + call('HDEL', hash, scan[2][index])
  end
end
return { scan[1], dropped }
