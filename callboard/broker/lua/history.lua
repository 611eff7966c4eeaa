-- Fragment: `h:ID`, a version byte and msgpack entries one after another: attempts that did not complete
-- {'A', number, outcome, started, finished, worker, token, error}, interruptions
-- {'I', at, cause, worker, token} and the result {'R', bytes}. `error` and the result are opaque.
local HISTORY_LIMIT = 20

local function history_append(id, m, entry)
  local key = P .. 'h:' .. id
  if m[HISTORY] == 0 then
    call('SET', key, RECORD_VERSION .. cmsgpack.pack(entry))
  else
    call('APPEND', key, cmsgpack.pack(entry))
  end
  m[HISTORY] = m[HISTORY] + 1
  if m[HISTORY] > 2 * HISTORY_LIMIT then
    -- Keep the newest: cut the oldest entries off without touching the bytes of the others.
    local raw = call('GET', key)
    local offset, skipped = 1, 0
    while offset >= 0 and offset < #raw and skipped < HISTORY_LIMIT do
      offset = cmsgpack.unpack_one(raw, offset)
      skipped = skipped + 1
    end
    if offset > 0 then
      call('SET', key, RECORD_VERSION .. string.sub(raw, offset + 1))
      m[HISTORY] = m[HISTORY] - skipped
    end
  end
end

local function record_attempt(id, m, outcome, failure)
  history_append(id, m, { 'A', m[ATTEMPT], outcome, m[STARTED], now, m[WORKER], m[TOKEN], failure })
end

-- An interruption is no attempt: the next claim counts the same number again.
local function record_interruption(id, m, cause)
  history_append(id, m, { 'I', now, cause, m[WORKER], m[TOKEN] })
  m[ATTEMPT] = m[ATTEMPT] - 1
end
