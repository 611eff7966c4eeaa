-- uses: keys, time, record
-- A queue's figures at one moment. No transition.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  minutes of finished runs that the mean is taken over
-- Returns  {pending, queued, running, completed, failed, cancelled, ms that the oldest queued task has been
--          ready (-1 none), due tasks not promoted yet, runs finished in those minutes, their ms together}
local figures = {}
for index, state in ipairs({ 'pending', 'queued', 'running', 'completed', 'failed', 'cancelled' }) do
  figures[index] = call('ZCARD', P .. state)
end
local oldest = call('ZRANGE', AGE, 0, 0, 'WITHSCORES')
figures[7] = oldest[2] and math.max(0, now - tonumber(oldest[2])) or -1
figures[8] = call('ZCOUNT', PENDING, '-inf', NOW)
local fields, minute = {}, math.floor(now / 60000)
for back = 0, tonumber(ARGV[1]) - 1 do
  fields[#fields + 1] = integer(minute - back) .. ':n'
  fields[#fields + 1] = integer(minute - back) .. ':ms'
end
local sums = call('HMGET', P .. 'runs', unpack(fields))
local n, ms = 0, 0
for index = 1, #sums, 2 do
  n, ms = n + tonumber(sums[index] or 0), ms + tonumber(sums[index + 1] or 0)
end
figures[9], figures[10] = n, ms
return figures
