-- uses: keys, time, record
-- Outbox items that may be delivered now, the oldest first, up to 1 MiB of bodies. No transition.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  at most this many (1…50)
-- Returns  {now in ms, member, body (nil: delivered already), member, body, …}
local found, bytes = { now }, 0
local due = call('ZRANGEBYSCORE', P .. 'outbox', '-inf', NOW, 'LIMIT', 0, ARGV[1])
for _, member in ipairs(due) do
  local body = call('GET', P .. 'o:' .. member)
  if body then bytes = bytes + #body end
  if #found > 1 and bytes > 1048576 then break end
  found[#found + 1], found[#found + 2] = member, body
end
return found
