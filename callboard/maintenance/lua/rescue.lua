-- uses: keys, time, record, fair, event, wake, history, ending
-- Leases that expired: running -> queued (its old score), failed or cancelled.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  events "FULL:KEEP"   ARGV[2] losses that quarantine
-- ARGV[3…] fours id, token, verdict, cause (at most 50 fours). The verdict: "present" (its worker lives), or it
--          vanished, which costs a "strike" (an attempt and a loss), an "attempt", or "nothing"; the cause in
--          words, may be "". The caller has seen Redis answer for a whole lease; this script checks again that
--          the lease has expired.
-- Returns  per four "queued", "failed", "cancelled" or "" (not ours to rescue any more)
local replies, woke, changed = {}, false, false
for index = 3, #ARGV, 4 do
  local id, token, verdict, cause = ARGV[index], ARGV[index + 1], ARGV[index + 2], ARGV[index + 3]
  local gone, counts = verdict ~= 'present', verdict == 'strike' or verdict == 'attempt'
  local lease = tonumber(call('ZSCORE', RUNNING, id) or 'inf')
  local expired = lease <= now
  local m = expired and read(id)
  local state = ''
  if expired and not m then
    call('ZREM', RUNNING, id)
    bury(id)
    state = 'failed'
  elseif m and m[STATE] == 'running' and m[TOKEN] == token then
    call('ZREM', RUNNING, id)
    local blamed = verdict == 'strike' or verdict == 'present'
    if blamed then m[LOSSES] = m[LOSSES] + 1 end
    m[OUTCOME] = 'lost'
    m[TOKEN] = '' -- what its worker still says comes too late, and must not read as said already
    local failure = cjson.encode({ type = 'LeaseLost', traceback = '', retryable = true,
      message = gone and ('Worker ' .. m[WORKER] .. ' vanished while it ran this task'
          .. (cause ~= '' and ': ' .. cause or '') .. '.')
        or ('Worker ' .. m[WORKER] .. ' did not renew the lease in time.') })
    local spent = counts and m[MAX_ATTEMPTS] >= 0 and m[ATTEMPT] >= m[MAX_ATTEMPTS]
    local poisoned = blamed and m[LOSSES] >= tonumber(ARGV[2])
    if counts or poisoned then
      record_attempt(id, m, 'lost', failure)
    else
      record_interruption(id, m, gone and cause ~= '' and cause or 'lease expired')
    end
    if poisoned then
      finish(id, m, 'failed', 'quarantined')
      event('f', id, m)
    elseif m[CANCEL] > 0 then
      finish(id, m, 'cancelled', m[TERMINATE] == 1 and 'terminated' or 'cancelled')
      event('x', id, m)
    elseif spent then
      finish(id, m, 'failed', 'exhausted')
      event('f', id, m)
    else
      return_queued(id, m)
      event('u', id, m)
      woke = true
    end
    write(id, m)
    if TERMINAL[m[STATE]] then announce(id, m) end
    state = m[STATE]
  end
  changed = changed or state ~= ''
  replies[#replies + 1] = state
end
if changed then
  fair_flush()
  stamp()
end
if woke then wake() end
return replies
