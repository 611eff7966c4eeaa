-- Fragment: an id that was seen before. A resend is a no-op: our ids are unique, and a foreign id carries the
-- nonce of its enqueue call.
-- What a later run of a foreign id says to `nonce`: its state when it is a resend, or lives; nil: run anew.
local function answer_of(run, nonce)
  local m = read(run)
  if m and (m[NONCE] == nonce or not TERMINAL[m[STATE]]) then return m[STATE] end
  return not m and call('GET', P .. 't:' .. run) == nonce and 'deleted' or nil
end

-- The run that this nonce belongs to: an existing one (a resend, or a live twin) with its state; or the id of
-- a new one, nil, and the first run's record, which counts them. The first may have gone before a later one:
-- then `r:ID` names that.
local MAX_PROBES = 100
local function resolve(id, nonce, raw, grave)
  if not raw then
    if grave and (nonce == '' or nonce == grave) then return id, 'deleted' end
    local run = nonce ~= '' and call('GET', P .. 'r:' .. id)
    local state = run and answer_of(id .. '~' .. run, nonce)
    if state then return id .. '~' .. run, state end
    return id, nil
  end
  local base = decode(raw)
  if not base then return id, 'failed' end
  if nonce == '' or base[NONCE] == nonce then return id, base[STATE] end
  if base[RUNS] >= 2 then
    local last_id = id .. '~' .. integer(base[RUNS])
    local state = answer_of(last_id, nonce)
    if state then return last_id, state end
  end
  if not TERMINAL[base[STATE]] then return id, base[STATE] end
  base[RUNS] = math.max(base[RUNS], 1) + 1
  -- Runs may be left from an earlier first one, pruned or deleted since: never write over them.
  local probes = 0
  while call('EXISTS', P .. 'm:' .. id .. '~' .. integer(base[RUNS])) == 1 do
    probes = probes + 1
    base[RUNS] = probes < MAX_PROBES and base[RUNS] + 1 or now + probes
  end
  return id .. '~' .. integer(base[RUNS]), nil, base
end
