-- uses: keys, time
-- The per-minute buckets of finished runs (finishing.lua). No transition.
--
-- KEYS[1]  the queue's prefix
-- Returns  {now in ms, field, count, field, count, …}
local tallies = call('HGETALL', P .. 'runs')
table.insert(tallies, 1, now)
return tallies
