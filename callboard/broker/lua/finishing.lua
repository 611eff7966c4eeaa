-- Fragment: what a worker says of a running task. An operation is a msgpack array {kind, id, token,
-- progress, progress_seq, first_line, lines, …}; `lines` is an array of packed log entries (note.lua).
-- After those:
--   completed  result
--   failed     outcome, reason, error
--   retry      outcome, error, delay_ms, options   (the attempt counts)
--   snooze     cause, delay_ms, options            (Retry(counts=False): no attempt; options may be absent)
--   release    cause, started                      (shutdown: no attempt, the old score; 0: it never started)
--   unknown                                        (no worker code for the name: back-off, no attempt)
--   cancelled  reason, error
-- and, for completed, failed, retry and snooze, an array of follow-ups for the outbox, each opaque (may be
-- absent).
-- Answers: "ok", "already" (this outcome is recorded: a resend) or "lost" (another holds the lease).
--
-- One function around all of it: a claim that brings no operation, which a task is waiting for, makes none of
-- these closures (a fifth of its price).

local MAX_MISS_DELAY_MS = 60000 -- inline

-- Apply the operations from ARGV[from] on, in order. Returns their answers, and whether anything was written.
local function apply_operations(from)
  -- `mark` tells this outcome's items from those of another one that are not delivered yet.
  local function enlist(id, followers, mark)
    for index, body in ipairs(followers or {}) do
      local member = id .. ':' .. mark .. ':' .. index
      call('ZADD', P .. 'outbox', NOW, member)
      call('SET', P .. 'o:' .. member, body)
    end
  end

  -- Figures of the minute: runs, their ms, those that did not complete, and histograms of run and wait whose
  -- bucket k counts floor(2 * log2(ms + 1)) = k.
  local tallied, tallied_ms, tallied_bad, run_buckets, wait_buckets = 0, 0, 0, {}, {}
  local HALF_OCTAVE = math.log(2) / 2

  local function bucket(ms) return math.floor(math.log(ms + 1) / HALF_OCTAVE + 1e-9) end

  local function tally(m)
    local run = math.max(0, now - m[STARTED]) -- the clock may have stepped back
    tallied, tallied_ms = tallied + 1, tallied_ms + run
    if m[STATE] ~= 'completed' then tallied_bad = tallied_bad + 1 end
    local k = bucket(run)
    run_buckets[k] = (run_buckets[k] or 0) + 1
    if m[ATTEMPT] == 1 then
      k = bucket(m[WAIT])
      wait_buckets[k] = (wait_buckets[k] or 0) + 1
    end
  end

  local function tally_flush()
    if tallied == 0 then return end
    local runs, minute = P .. 'runs', integer(math.floor(now / 60000))
    call('HINCRBY', runs, minute .. ':n', tallied)
    call('HINCRBY', runs, minute .. ':ms', integer(tallied_ms))
    if tallied_bad > 0 then call('HINCRBY', runs, minute .. ':f', tallied_bad) end
    for k, n in pairs(run_buckets) do call('HINCRBY', runs, minute .. ':r' .. k, n) end
    for k, n in pairs(wait_buckets) do call('HINCRBY', runs, minute .. ':w' .. k, n) end
  end

  local function back_to_pending(id, m, delay_ms, reason)
    if m[CANCEL] > 0 then
      finish(id, m, 'cancelled', m[TERMINATE] == 1 and 'terminated' or 'cancelled')
      event('x', id, m)
      announce(id, m)
      return
    end
    m[STATE], m[REASON], m[DUE] = 'pending', reason, now + delay_ms
    park(id, m[DUE])
    event('y', id, m)
  end

  -- Applied to a task whose token matches; the id has left `running`.
  local apply = {}

  function apply.completed(id, m, op)
    m[OUTCOME] = 'completed'
    finish(id, m, 'completed', '')
    if op[8] ~= '' then history_append(id, m, { 'R', op[8] }) end
    enlist(id, op[9], integer(m[ATTEMPT]))
    event('c', id, m)
    announce(id, m)
    tally(m)
  end

  function apply.failed(id, m, op)
    m[OUTCOME] = op[8]
    finish(id, m, 'failed', op[9])
    record_attempt(id, m, op[8], op[10])
    enlist(id, op[11], integer(m[ATTEMPT]))
    event('f', id, m)
    announce(id, m)
    tally(m)
  end

  function apply.retry(id, m, op)
    m[OUTCOME] = op[8]
    record_attempt(id, m, op[8], op[9])
    if op[11] ~= '' then m[OPTIONS] = op[11] end
    enlist(id, op[12], integer(m[ATTEMPT]))
    back_to_pending(id, m, op[10], 'backoff')
  end

  function apply.snooze(id, m, op)
    m[OUTCOME] = 'snoozed'
    if op[10] and op[10] ~= '' then m[OPTIONS] = op[10] end
    enlist(id, op[11], m[TOKEN]) -- the attempt will come again
    record_interruption(id, m, op[8])
    back_to_pending(id, m, op[9], 'delayed')
  end

  function apply.unknown(id, m)
    m[OUTCOME] = 'unknown'
    m[ATTEMPT] = m[ATTEMPT] - 1
    if m[ATTEMPT] == 0 then m[WAIT] = -1 end
    m[MISSES] = m[MISSES] + 1
    back_to_pending(id, m, math.min(1000 * 2 ^ math.min(m[MISSES] - 1, 16), MAX_MISS_DELAY_MS), 'backoff')
  end

  function apply.release(id, m, op)
    m[OUTCOME] = 'released'
    record_interruption(id, m, op[8])
    if op[9] == 0 and m[ATTEMPT] == 0 then m[WAIT] = -1 end -- it goes on waiting for its first start
    if m[CANCEL] > 0 then
      finish(id, m, 'cancelled', m[TERMINATE] == 1 and 'terminated' or 'cancelled')
      event('x', id, m)
      announce(id, m)
    else
      return_queued(id, m)
      event('r', id, m, op[8])
    end
  end

  function apply.cancelled(id, m, op)
    m[OUTCOME] = 'cancelled'
    finish(id, m, 'cancelled', op[8])
    record_attempt(id, m, 'cancelled', op[9])
    event('x', id, m)
    announce(id, m)
    tally(m)
  end

  -- Whose outcome `token` is: the record's own, an earlier attempt's (it stands in the history), or nobody's.
  -- A rescue wipes the token, so a lease that was lost is never taken for an outcome that was recorded.
  local function settled(id, m, token)
    if m[TOKEN] == token then return 'already' end
    if m[HISTORY] > 0 then
      local history = call('GET', P .. 'h:' .. id)
      -- Packed, it opens with its length: 1.n-1 is not found in 1.n-10.
      if history and string.find(history, cmsgpack.pack(token), 1, true) then return 'already' end
    end
    return 'lost'
  end

  local ARITY = { completed = 9, failed = 11, retry = 11, snooze = 9, release = 8, unknown = 7, cancelled = 9 }

  -- An operation, checked. All of a turn's are read before the first is applied: nothing is rolled back.
  local function operation(packed)
    local op = cmsgpack.unpack(packed)
    if #op < (ARITY[op[1]] or math.huge) then error('CALLBOARD malformed operation ' .. tostring(op[1])) end
    return op
  end

  local function settle(op)
    local id = op[2]
    local m = read(id)
    if m == nil then return call('EXISTS', P .. 't:' .. id) == 1 and 'already' or 'lost' end
    if m == false then return 'lost' end
    if m[STATE] ~= 'running' or m[TOKEN] ~= op[3] then return settled(id, m, op[3]) end
    call('ZREM', RUNNING, id)
    -- Who follows the task hears of what comes with its end as of all before.
    if op[4] ~= '' and op[4] ~= m[PROGRESS] then
      m[PROGRESS] = op[4]
      event('p', id, m, op[4])
    end
    if op[7] and #op[7] > 0 and log_append(id, m, op[6], op[7]) then event('l', id, m, integer(m[LOG_LINES])) end
    apply[op[1]](id, m, op)
    write(id, m)
    return 'ok'
  end

  local operations, answers, changed = {}, {}, false
  for index = from, #ARGV do operations[index - from + 1] = operation(ARGV[index]) end
  for index, op in ipairs(operations) do
    answers[index] = settle(op)
    changed = changed or answers[index] == 'ok'
  end
  tally_flush()
  return answers, changed
end
