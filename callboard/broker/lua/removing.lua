-- Fragment: the end of a record. Large values die by UNLINK; a tombstone answers resends for a minute.
local TOMBSTONE_MS = 60000 -- inline

local function remove(id)
  call('ZREM', ALL, id)
  call('UNLINK', P .. 'i:' .. id, P .. 'm:' .. id, P .. 'h:' .. id, P .. 'l:' .. id, P .. 'bad:' .. id)
  -- The last run of a foreign id: nobody need find it any more, but for its resends.
  local first, run = string.match(id, '^(.+)~(%d+)$')
  if first and call('GET', P .. 'r:' .. first) == run then call('PEXPIRE', P .. 'r:' .. first, TOMBSTONE_MS) end
end
