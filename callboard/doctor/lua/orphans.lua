-- uses: keys
-- Outbox items of which only half is there: a place without a body cannot be delivered, a body without a place
-- never will be. With the flag, the half is dropped.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  "1" to mend   ARGV[2…] members (at most 100)
-- Returns  the members that are orphans
local orphans = {}
for index = 2, #ARGV do
  local member = ARGV[index]
  local placed = call('ZSCORE', P .. 'outbox', member)
  local body = call('EXISTS', P .. 'o:' .. member) == 1
  if (placed and not body) or (body and not placed) then
    orphans[#orphans + 1] = member
    if ARGV[1] == '1' then
      call('ZREM', P .. 'outbox', member)
      call('UNLINK', P .. 'o:' .. member)
    end
  end
end
return orphans
