-- Fragment: the end of a record. Large values die by UNLINK; a tombstone answers resends for a minute.
local TOMBSTONE_MS = 60000 -- inline

local function remove(id)
  call('ZREM', ALL, id)
  call('UNLINK', P .. 'i:' .. id, P .. 'm:' .. id, P .. 'h:' .. id, P .. 'l:' .. id, P .. 'bad:' .. id)
end
