-- uses: keys, time, record, fair
-- Priorities without a queued task whose fairness hash is still there: each key in it has an old place. With
-- the flag, the priority starts anew, as it does when a claim empties it.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  "1" to mend
-- Returns  the priorities, as text
local stale = {}
for p = 0, 9 do
  local from, to = integer(p * K), '(' .. integer((p + 1) * K)
  if call('EXISTS', P .. 'fair:' .. p) == 1 and call('ZCOUNT', QUEUED, from, to) == 0 then
    stale[#stale + 1] = tostring(p)
    if ARGV[1] == '1' then fair_load(p) end
  end
end
fair_flush()
return stale
