-- Fragment: `h:ID`, a version byte and msgpack entries one after another: attempts that did not complete
-- {'A', number, outcome, started, finished, worker, token, error}, interruptions
-- {'I', at, cause, worker, token} and the result {'R', bytes}. `error` and the result are opaque.
local HISTORY_LIMIT, HISTORY_SLACK = 20, 10 -- inline

-- Keep the newest attempts and the newest interruptions, each up to the limit; their bytes stay as they are.
local function history_cut(key, m, newest)
  local raw = call('GET', key) or ''
  local kept, held, starts, kinds = {}, {}, {}, {}
  local readable = pcall(function()
    local offset = 1
    while offset > 0 and offset < #raw do
      local following, entry = cmsgpack.unpack_one(raw, offset)
      starts[#starts + 1], kinds[#kinds + 1] = offset, entry[1]
      offset = following
    end
  end)
  starts[#starts + 1] = #raw
  for index = readable and #kinds or 0, 1, -1 do
    local kind = kinds[index]
    held[kind] = (held[kind] or 0) + 1
    if held[kind] <= HISTORY_LIMIT then
      table.insert(kept, 1, string.sub(raw, starts[index] + 1, starts[index + 1]))
    end
  end
  if not readable then kept = { cmsgpack.pack(newest) } end
  call('SET', key, RECORD_VERSION .. table.concat(kept))
  m[HISTORY] = #kept
end

local function history_append(id, m, entry)
  local key = P .. 'h:' .. id
  if m[HISTORY] == 0 then
    call('SET', key, RECORD_VERSION .. cmsgpack.pack(entry))
  else
    call('APPEND', key, cmsgpack.pack(entry))
  end
  m[HISTORY] = m[HISTORY] + 1
  if m[HISTORY] > 2 * HISTORY_LIMIT + HISTORY_SLACK then history_cut(key, m, entry) end
end

local function record_attempt(id, m, outcome, failure)
  history_append(id, m, { 'A', m[ATTEMPT], outcome, m[STARTED], now, m[WORKER], m[TOKEN], failure })
end

-- An interruption is no attempt: the next claim counts the same number again.
local function record_interruption(id, m, cause)
  history_append(id, m, { 'I', now, cause, m[WORKER], m[TOKEN] })
  m[ATTEMPT] = m[ATTEMPT] - 1
end
