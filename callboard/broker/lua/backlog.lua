-- uses: keys, time, record
-- The tasks of one fairness key in a state: a bounded look through the state's set. Writes nothing.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  state   ARGV[2] fairness key   ARGV[3] where the look before stopped ("" in the first one)
-- ARGV[4]  tasks to look at (1…500)
-- Returns  {what to send with the next look ("" at the end), id, priority, id, priority, …}, by score
local state, key, limit = ARGV[1], ARGV[2], tonumber(ARGV[4])
if TERMINAL[state] == nil then return redis.error_reply('CALLBOARD there is no state ' .. state) end
-- Scores may be shared: how many of the last one have been seen comes with it.
local last, ties = string.match(ARGV[3], '^(.+):(%d+)$')
last, ties = last or '-inf', tonumber(ties) or 0
local page = call('ZRANGEBYSCORE', P .. state, last, '+inf', 'WITHSCORES', 'LIMIT', ties, limit)
local found, records = { '' }, {}
for index = 1, #page, 2 do
  records[#records + 1] = P .. 'm:' .. page[index]
  if page[index + 1] == last then ties = ties + 1 else last, ties = page[index + 1], 1 end
end
for index, raw in ipairs(#records > 0 and call('MGET', unpack(records)) or {}) do
  local m = raw and decode(raw)
  if m and m[FAIR] == key then
    found[#found + 1], found[#found + 2] = page[2 * index - 1], m[PRIORITY]
  end
end
if #records == limit then found[1] = last .. ':' .. integer(ties) end
return found
