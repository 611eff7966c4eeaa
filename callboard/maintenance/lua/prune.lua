-- uses: keys, time, record, removing
-- Retention: drop the oldest of one terminal state, a bounded step.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  state   ARGV[2] drop those finished more than this many ms ago (-1: any age)
-- ARGV[3]  keep at most this many (-1: any number)   ARGV[4] at most this many in this step (1…200)
-- Returns  {dropped, left}
if not TERMINAL[ARGV[1]] then return redis.error_reply('CALLBOARD ' .. ARGV[1] .. ' tasks cannot be pruned') end
local set, age, keep, limit = P .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local size = call('ZCARD', set)
local excess = keep >= 0 and math.min(limit, math.max(0, size - keep)) or 0
local ids = excess > 0 and call('ZRANGE', set, 0, excess - 1) or {}
if #ids < limit and age >= 0 then
  ids = call('ZRANGEBYSCORE', set, '-inf', integer(now - age), 'LIMIT', 0, math.max(limit, excess))
  if #ids < excess then ids = call('ZRANGE', set, 0, excess - 1) end
end
for _, id in ipairs(ids) do
  call('ZREM', set, id)
  remove(id)
end
return { #ids, size - #ids }
