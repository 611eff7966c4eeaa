-- Fragment: into `pending` until `due`. Wakes a consumer if it became the earliest, for they sleep until then.
local function park(id, due)
  local first = call('ZRANGE', PENDING, 0, 0, 'WITHSCORES')
  call('ZADD', PENDING, integer(due), id)
  if not first[2] or due < tonumber(first[2]) then wake() end
end
