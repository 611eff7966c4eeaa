-- uses: keys, time, record
-- Leases that have run out, for the rescuer to judge. No transition.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  at most this many (1…50)
-- Returns  per task {id, token, worker, ms since the lease expired}; token and worker are "" where the
--          record cannot be decoded
local found = {}
local expired = call('ZRANGEBYSCORE', RUNNING, '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
for index = 1, #expired, 2 do
  local m = read(expired[index])
  found[#found + 1] = { expired[index], m and m[TOKEN] or '', m and m[WORKER] or '',
    math.floor(now - tonumber(expired[index + 1])) }
end
return found
