-- uses: keys, time, record, fair, event, wake, history, ending
-- Accept tasks: nothing -> pending (delayed) or queued.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  events "FULL:KEEP"    ARGV[2]  highest depth (pending + queued) allowed, 0 for no bound
-- ARGV[3…] one msgpack array a task: {id, body, name, owner, fairness key, weight, priority, delay_ms,
--          due_at (0 none), expires_in_ms (0 none), max_attempts (-1 endless), nonce, reason}
-- Returns  per task {id, state, created_at (0 for a resend)}, {id, "full", 0}, or {id, "deleted", 0} for a
--          resend of what was deleted within the last minute; the id differs from the one sent only for a
--          foreign id whose earlier run has ended: `ID~2`, `ID~3`, …
-- A resend is a no-op: our ids are unique, and a foreign id carries the nonce of its enqueue call.
local replies, woke = {}, false
local limit = tonumber(ARGV[2])
local depth = limit > 0 and call('ZCARD', QUEUED) + call('ZCARD', PENDING) or 0

-- The run that this nonce belongs to: an existing one (a resend, or a live twin) with its state; or the id of
-- a new one, nil, and the first run's record, which counts them.
local MAX_PROBES = 100
local function resolve(id, nonce)
  local base = read(id)
  if base == nil then
    local grave = call('GET', P .. 't:' .. id)
    return id, grave and (nonce == '' or nonce == grave) and 'deleted' or nil
  end
  if base == false then return id, 'failed' end
  if nonce == '' or base[NONCE] == nonce then return id, base[STATE] end
  if base[RUNS] >= 2 then
    local last_id = id .. '~' .. integer(base[RUNS])
    local last = read(last_id)
    if last and (last[NONCE] == nonce or not TERMINAL[last[STATE]]) then return last_id, last[STATE] end
    if not last and call('GET', P .. 't:' .. last_id) == nonce then return last_id, 'deleted' end
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

-- All are read before the first is written: nothing is rolled back.
local tasks, changed = {}, false
for index = 3, #ARGV do
  local task = cmsgpack.unpack(ARGV[index])
  if #task < 13 then error('CALLBOARD malformed task') end
  tasks[index - 2] = task
end

for _, task in ipairs(tasks) do
  local id, state, first = resolve(task[1], task[12])
  if state then
    replies[#replies + 1] = { id, state, 0 }
  elseif limit > 0 and depth >= limit then
    replies[#replies + 1] = { id, 'full', 0 }
  else
    changed = true
    if first then write(task[1], first) end
    local m = blank(task[3], task[4])
    m[FAIR], m[WEIGHT], m[PRIORITY] = task[5], task[6], math.max(0, math.min(9, task[7]))
    m[MAX_ATTEMPTS], m[NONCE] = task[11], task[12]
    if task[10] > 0 then m[EXPIRES] = now + task[10] end
    local due = task[9]
    if task[8] > 0 then due = now + task[8] end
    call('SET', P .. 'i:' .. id, task[2])
    call('ZADD', ALL, now, id)
    if due > now then
      m[DUE], m[REASON] = due, task[13]
      park(id, due)
    else
      enter_queued(id, m)
      woke = true
    end
    write(id, m)
    event('s', id, m)
    depth = depth + 1
    replies[#replies + 1] = { id, m[STATE], now }
  end
end
if changed then
  fair_flush()
  stamp()
end
if woke then wake() end
return replies
