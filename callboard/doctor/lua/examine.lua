-- uses: keys, time, record, fair, event, wake, history, ending
-- Examine tasks against the invariants: in exactly one state's set, the one that the record names, listed in
-- `all`, in `age` while queued. With the flag, mend what is wrong: the record is believed before the sets, and
-- a task that cannot run any more fails, where people see it.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  events "FULL:KEEP"   ARGV[2] "1" to mend   ARGV[3…] ids (at most 100)
-- Returns  per id the codes of its faults, joined by blanks ("" for a sound one)
local MEND = ARGV[2] == '1'
local STATES = { 'pending', 'queued', 'running', 'completed', 'failed', 'cancelled' }
local IS_STATE = {}
for _, state in ipairs(STATES) do IS_STATE[state] = true end
local LONGEST_LEASE_MS = 7200000 -- twice the longest that the settings allow

local woke, wrote = false, false

local function leftovers(id)
  return call('EXISTS', P .. 'i:' .. id, P .. 'h:' .. id, P .. 'l:' .. id)
end

-- Where the record says that it stands, with the score that belongs there.
local function proper_score(m)
  local state = m[STATE]
  if state == 'queued' then return integer(m[SCORE]) end
  if state == 'running' then return NOW end -- an expired lease: its worker renews it, or it is rescued
  if state ~= 'pending' then return integer(m[FINISHED] > 0 and m[FINISHED] or now) end
  if m[REASON] == 'blocked' or m[REASON] == 'limited' then return '+inf' end
  return integer(m[DUE] > 0 and m[DUE] or now)
end

-- Whether the score in its own set is one that the scripts could have written.
local function misplaced(m, score)
  local state = m[STATE]
  if state == 'running' then return score > now + LONGEST_LEASE_MS end
  if state == 'queued' or state == 'pending' then return score ~= tonumber(proper_score(m)) end
  return false
end

-- It can never run: failed for good, under its own name.
local function give_up(id, m, places)
  forsake(id)
  if places.queued then fair_leave(m) end
  finish(id, m, 'failed', 'permanent')
  record_attempt(id, m, 'failed', cjson.encode({ type = 'PayloadLost', traceback = '', retryable = false,
    message = 'The payload of this task is gone; it cannot run.' }))
  if not call('ZSCORE', ALL, id) then call('ZADD', ALL, integer(m[CREATED]), id) end
  write(id, m)
  event('f', id, m)
  announce(id, m)
end

local function place(id, m, places)
  call('ZREM', AGE, id)
  for state in pairs(places) do call('ZREM', P .. state, id) end
  if places.queued and m[STATE] ~= 'queued' then fair_leave(m) end
  call('ZADD', P .. m[STATE], proper_score(m), id)
  if m[STATE] == 'queued' then
    call('ZADD', AGE, integer(m[QUEUED_AT] > 0 and m[QUEUED_AT] or now), id)
    woke = true
  end
  if m[STATE] == 'pending' then woke = true end
  if not call('ZSCORE', ALL, id) then call('ZADD', ALL, integer(m[CREATED]), id) end
end

local function examine(id)
  local m, places, count, waits = read(id), {}, 0, false
  for _, state in ipairs(STATES) do
    local score = call('ZSCORE', P .. state, id)
    if score then
      places[state], count = tonumber(score), count + 1
      waits = waits or not TERMINAL[state]
    end
  end
  local listed, aged = call('ZSCORE', ALL, id), call('ZSCORE', AGE, id)
  if m == nil then
    if count == 0 and not listed and not aged then
      if leftovers(id) == 0 then return '' end
      if MEND then call('UNLINK', P .. 'i:' .. id, P .. 'h:' .. id, P .. 'l:' .. id) end
      return 'leftovers'
    end
    if MEND then
      wrote = true
      if waits then
        bury(id)
      else
        forsake(id)
        call('ZREM', ALL, id)
        call('UNLINK', P .. 'i:' .. id, P .. 'h:' .. id, P .. 'l:' .. id)
      end
    end
    return 'no-record'
  end
  if m == false or not IS_STATE[m[STATE]] then
    if MEND then
      wrote = true
      bury(id)
    end
    return 'undecodable'
  end
  local state, faults = m[STATE], {}
  local function fault(code) faults[#faults + 1] = code end
  if (state == 'pending' or state == 'queued') and call('EXISTS', P .. 'i:' .. id) == 0 then
    if MEND then
      wrote = true
      give_up(id, m, places)
    end
    return 'no-payload'
  end
  if count == 0 then fault('no-set') end
  if count > 1 then fault('two-sets') end
  if count == 1 and not places[state] then fault('wrong-set') end
  if count == 1 and places[state] and misplaced(m, places[state]) then fault('wrong-score') end
  if not listed then fault('unlisted') end
  if state == 'queued' and not aged then fault('no-age') end
  if state ~= 'queued' and aged then fault('stray-age') end
  if MEND and #faults > 0 then
    wrote = true
    place(id, m, places)
  end
  return table.concat(faults, ' ')
end

local answers = {}
for index = 3, #ARGV do answers[#answers + 1] = examine(ARGV[index]) end
if wrote then
  fair_flush()
  stamp()
  if woke then wake() end
end
return answers
