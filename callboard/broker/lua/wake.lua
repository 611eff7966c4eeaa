-- Fragment: the wake list. One token says "look again"; a second adds nothing, because a claim that leaves
-- work behind pushes the next one.
local function wake()
  if call('LLEN', P .. 'wake') == 0 then call('LPUSH', P .. 'wake', '1') end
end
