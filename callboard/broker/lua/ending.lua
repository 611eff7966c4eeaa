-- Fragment: what ends a task or sends it back. Each function is called after the id has left its set (a ZREM,
-- so that it works at maxmemory) and leaves `m` to be written by the caller.

-- Into a terminal state's set, for retention by finish time.
local function finish(id, m, state, reason)
  m[STATE], m[REASON], m[FINISHED] = state, reason, now
  call('ZADD', P .. state, NOW, id)
end

-- Ready to run, with a new fair tag.
local function enter_queued(id, m)
  m[SCORE] = fair_enter(m[PRIORITY], m[FAIR], m[WEIGHT])
  m[STATE], m[REASON], m[QUEUED_AT] = 'queued', '', now
  call('ZADD', QUEUED, integer(m[SCORE]), id)
  call('ZADD', AGE, NOW, id)
end

-- Ready to run again with the score that it had.
local function return_queued(id, m)
  fair_return(m)
  m[STATE], m[REASON], m[QUEUED_AT] = 'queued', '', now
  call('ZADD', QUEUED, integer(m[SCORE]), id)
  call('ZADD', AGE, NOW, id)
end

-- A record that cannot be decoded fails with the cause, instead of meeting every claim for ever. What could
-- be saved is nothing but the id; the unreadable bytes are kept beside it for whoever investigates. It may stand
-- in any set, and can never run again: MAX_ATTEMPTS 0.
local function bury(id)
  local raw = call('GET', P .. 'm:' .. id)
  local m = blank('unknown', 'default')
  fair_abandon(id)
  forsake(id)
  m[MAX_ATTEMPTS], m[CREATED] = 0, tonumber(call('ZSCORE', ALL, id) or now)
  call('ZADD', ALL, m[CREATED], id)
  finish(id, m, 'failed', 'permanent')
  history_append(id, m, { 'A', 0, 'failed', 0, now, '', '',
    cjson.encode({ type = 'UndecodableRecord', message = 'The record could not be decoded.',
      traceback = '', retryable = false }) })
  if raw then call('SET', P .. 'bad:' .. id, string.sub(raw, 1, 65536), 'PX', 604800000) end
  write(id, m)
  event('f', id, m)
  announce(id, m)
end
