-- Fragment: the wake list. One token says "look again"; a second adds nothing, because a claim that leaves
-- work behind pushes the next one.
local function wake()
  if call('LLEN', P .. 'wake') == 0 then call('LPUSH', P .. 'wake', '1') end
end

-- Into `pending` until `due`; wakes a consumer if it became the earliest, for they sleep until the earliest.
local function park(id, due)
  local first = call('ZRANGE', PENDING, 0, 0, 'WITHSCORES')
  call('ZADD', PENDING, integer(due), id)
  if not first[2] or due < tonumber(first[2]) then wake() end
end
