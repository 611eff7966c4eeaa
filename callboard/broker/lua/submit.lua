-- uses: keys, time, record, fair, event, wake
-- Accept tasks: nothing -> pending (delayed) or queued.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  events "FULL:KEEP"    ARGV[2]  highest depth (pending + queued) allowed, 0 for no bound
-- ARGV[3…] one msgpack array a task: {id, body, name, owner, fairness key, weight, priority, delay_ms,
--          due_at (0 none), expires_in_ms (0 none), nonce, reason, and the record's fields FAIR to LOSSES and
--          WORKER to its end, packed (records/layout.py)}
-- Returns  per task {id, state, created_at (0 for a resend)}, {id, "full", 0}, or {id, "deleted", 0} for a
--          resend of what was deleted within the last minute; the id differs from the one sent only for a
--          foreign id whose earlier run has ended: `ID~2`, `ID~3`, …
-- A resend is a no-op: our ids are unique, and a foreign id carries the nonce of its enqueue call.
local replies = {}
local limit = tonumber(ARGV[2])
local depth = limit > 0 and call('ZCARD', QUEUED) + call('ZCARD', PENDING) or 0

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

-- Of a msgpack array of FIELDS fields; '\160' is an empty text.
local RECORD_HEAD = RECORD_VERSION .. '\220\0' .. string.char(FIELDS)

-- All are read before the first is written: nothing is rolled back.
local tasks, wanted = {}, {}
for index = 3, #ARGV do
  local task = cmsgpack.unpack(ARGV[index])
  if #task < 14 then error('CALLBOARD malformed task') end
  local _ = task[6] + task[7] + task[8] + task[9] + task[10] -- fails for what is no number
  tasks[index - 2] = task
  wanted[2 * index - 5], wanted[2 * index - 4] = P .. 'm:' .. task[1], P .. 't:' .. task[1]
end
local found = call('MGET', unpack(wanted))

local entered, aged, all, written = {}, {}, {}, {}
for index, task in ipairs(tasks) do
  local raw, grave = found[2 * index - 1], found[2 * index]
  if written[task[1]] then raw = call('GET', P .. 'm:' .. task[1]) end
  local id, state, first = resolve(task[1], task[11], raw, grave)
  if state then
    replies[index] = { id, state, 0 }
  elseif limit > 0 and depth >= limit then
    replies[index] = { id, 'full', 0 }
  else
    if first then
      write(task[1], first)
      call('SET', P .. 'r:' .. task[1], integer(first[RUNS]))
    end
    local m = { [STATE] = 'queued', [PRIORITY] = math.max(0, math.min(9, task[7])), [SCORE] = 0, [FAIR] = task[5],
      [WEIGHT] = task[6], [NAME] = task[3], [OWNER] = task[4], [ATTEMPT] = '0', [REASON] = '' }
    local expires, due, queued_at = 0, task[9], 0
    if task[10] > 0 then expires = now + task[10] end
    if task[8] > 0 then due = now + task[8] end
    all[#all + 1], all[#all + 2] = NOW, id
    if due > now then
      m[STATE], m[REASON] = 'pending', task[12]
      park(id, due)
    else
      due, queued_at = 0, now
      fair_enter(m)
      entered[#entered + 1], entered[#entered + 2] = integer(m[SCORE]), id
      aged[#aged + 1], aged[#aged + 2] = NOW, id
    end
    -- The record, in the order of record.lua: what only Redis knows, between what came packed.
    local record = RECORD_HEAD .. cmsgpack.pack(m[STATE]) .. '\160\160' .. cmsgpack.pack(m[PRIORITY], m[SCORE])
      .. task[13] .. cmsgpack.pack(now, due, queued_at, 0, -1, 0, expires, 0, 0, m[REASON]) .. task[14]
    call('MSET', P .. 'i:' .. id, task[2], P .. 'm:' .. id, record)
    event('s', id, m)
    written[task[1]], written[id] = true, true
    depth = depth + 1
    replies[index] = { id, m[STATE], now }
  end
end
if #all > 0 then
  call('ZADD', ALL, unpack(all))
  if #entered > 0 then
    call('ZADD', QUEUED, unpack(entered))
    call('ZADD', AGE, unpack(aged))
    wake()
  end
  fair_flush()
  stamp()
end
return replies
