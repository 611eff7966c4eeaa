-- uses: keys, time, record, fair, event, wake
-- Accept tasks: nothing -> pending (delayed) or queued.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  events "FULL:KEEP"    ARGV[2]  highest depth (pending + queued) allowed, 0 for no bound
-- ARGV[3…] one msgpack array a task: {id, body, name, owner, fairness key, weight, priority, the record's
--          fields FAIR to LOSSES and WORKER to its end, packed (records/layout.py)}, and where any of them is
--          given {…, delay_ms, due_at, expires_in_ms, nonce}, with 0 and '' for none
-- Returns  per task {id, state, created_at (0 for a resend)}, {id, "full", 0}, or {id, "deleted", 0} for a
--          resend of what was deleted within the last minute; the id differs from the one sent only for a
--          foreign id whose earlier run has ended: `ID~2`, `ID~3`, …
-- A resend is a no-op: our ids are unique, and a foreign id carries the nonce of its enqueue call.
local replies = {}
local limit = tonumber(ARGV[2])
-- Nearly always all tasks, the ended ones too, are fewer than may wait: one look instead of two.
local depth = limit > 0 and call('ZCARD', ALL) or 0
if depth + #ARGV > limit and limit > 0 then depth = call('ZCARD', QUEUED) + call('ZCARD', PENDING) end

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

-- Of a msgpack array of FIELDS fields, packed as they are needed here: '\160' is an empty text, '\255' -1.
local RECORD_HEAD = RECORD_VERSION .. '\220\0' .. string.char(FIELDS)
local NOW_PACKED = cmsgpack.pack(now)

-- All are read before the first is written: nothing is rolled back.
local tasks, wanted = {}, {}
for index = 3, #ARGV do
  local task = cmsgpack.unpack(ARGV[index])
  if #task ~= 9 and #task ~= 13 then error('CALLBOARD malformed task') end
  local _ = task[6] + task[7] + (task[10] or 0) + (task[11] or 0) + (task[12] or 0) -- fails for what is no number
  tasks[index - 2] = task
  wanted[2 * index - 5], wanted[2 * index - 4] = P .. 'm:' .. task[1], P .. 't:' .. task[1]
end
local found = call('MGET', unpack(wanted))

local entered, all, written = {}, {}, {}
for index = 1, #tasks do
  local task = tasks[index]
  local id, nonce, raw, grave = task[1], task[13] or '', found[2 * index - 1], found[2 * index]
  local state, first
  if written[id] then raw = call('GET', P .. 'm:' .. id) end
  -- Nearly all are new.
  if raw or grave or nonce ~= '' then id, state, first = resolve(id, nonce, raw, grave) end
  if state then
    replies[index] = { id, state, 0 }
  elseif limit > 0 and depth >= limit then
    replies[index] = { id, 'full', 0 }
  else
    if first then
      write(task[1], first)
      call('SET', P .. 'r:' .. task[1], integer(first[RUNS]))
    end
    local due, priority = task[11] or 0, math.max(0, math.min(9, task[7]))
    if (task[10] or 0) > 0 then due = now + task[10] end
    local expires = (task[12] or 0) > 0 and cmsgpack.pack(now + task[12]) or '\0'
    all[#all + 1], all[#all + 2] = NOW, id
    local record
    if due > now then
      state = 'pending'
      park(id, due)
      record = '\167pending\160\160' .. cmsgpack.pack(priority, 0) .. task[8] .. NOW_PACKED .. cmsgpack.pack(due)
        .. '\0\0\255\0' .. expires .. '\0\0\167delayed' .. task[9]
      tell('s\31' .. id .. '\31' .. task[3] .. '\31' .. task[4] .. '\0310\31pending\31delayed\31')
    else
      state = 'queued'
      local score = fair_enter(priority, task[5], task[6])
      entered[#entered + 1], entered[#entered + 2] = integer(score), id
      record = '\166queued\160\160' .. cmsgpack.pack(priority, score) .. task[8] .. NOW_PACKED .. '\0'
        .. NOW_PACKED .. '\0\255\0' .. expires .. '\0\0\160' .. task[9]
      tell('s\31' .. id .. '\31' .. task[3] .. '\31' .. task[4] .. '\0310\31queued\31\31')
    end
    call('MSET', P .. 'i:' .. id, task[2], P .. 'm:' .. id, RECORD_HEAD .. record)
    written[task[1]], written[id] = true, true
    depth = depth + 1
    replies[index] = { id, state, now }
  end
end
if #all > 0 then
  call('ZADD', ALL, unpack(all))
  if #entered > 0 then
    call('ZADD', QUEUED, unpack(entered))
    local aged = all
    if #entered < #all then
      aged = {}
      for index = 2, #entered, 2 do aged[index - 1], aged[index] = NOW, entered[index] end
    end
    call('ZADD', AGE, unpack(aged))
    wake()
  end
  fair_flush()
  stamp()
end
return replies
