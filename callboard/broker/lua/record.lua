-- Fragment: the mutable half of a record, `m:ID`: a version byte and a msgpack array in this order.
-- records/record.py is its counterpart; a test holds the two together. New fields go to the end.
-- Numbers are integers (milliseconds since 1970, 0 for none; WAIT is a duration, -1 before the first start);
-- user data stays opaque bytes. Lines marked `inline` are replaced by their numbers when a script is joined: as
-- captured variables, these constants alone would cost 60 us a call (Lua looks each up in a list per closure).
local STATE, TOKEN, OUTCOME, PRIORITY, SCORE, FAIR, WEIGHT = 1, 2, 3, 4, 5, 6, 7 -- inline
local NAME, OWNER, ATTEMPT, MAX_ATTEMPTS, LOSSES = 8, 9, 10, 11, 12 -- inline
local CREATED, DUE, QUEUED_AT, STARTED, WAIT, FINISHED = 13, 14, 15, 16, 17, 18 -- inline
local EXPIRES, CANCEL, TERMINATE, REASON, WORKER = 19, 20, 21, 22, 23 -- inline
local PROGRESS, PROGRESS_SEQ, LOG_LINES, LOG_BYTES, LOG_SEQ = 24, 25, 26, 27, 28 -- inline
local OPTIONS, NONCE, RUNS, MISSES, HISTORY, REPLAY = 29, 30, 31, 32, 33, 34 -- inline
local FIELDS = 34 -- inline

local RECORD_VERSION = '\1' -- inline
-- Each state's set is P .. state. One table for both questions: nil is no state.
local TERMINAL = { pending = false, queued = false, running = false, completed = true, failed = true, cancelled = true }

-- A field of another type would stop some script halfway, each time that it meets the record. So every field is
-- used here once, as what it is: a sum and a concatenation, the cheapest check that Lua has (0.5 us).
local function unpacked(raw)
  local m = cmsgpack.unpack(string.sub(raw, 2))
  return m, m[PRIORITY] + m[SCORE] + m[WEIGHT] + m[ATTEMPT] + m[MAX_ATTEMPTS] + m[LOSSES] + m[CREATED] + m[DUE]
    + m[QUEUED_AT] + m[STARTED] + m[WAIT] + m[FINISHED] + m[EXPIRES] + m[CANCEL] + m[TERMINATE]
    + m[PROGRESS_SEQ] + m[LOG_LINES] + m[LOG_BYTES] + m[LOG_SEQ] + m[RUNS] + m[MISSES] + m[HISTORY],
    m[TOKEN] .. m[OUTCOME] .. m[FAIR] .. m[NAME] .. m[OWNER] .. m[REASON] .. m[WORKER] .. m[PROGRESS]
    .. m[OPTIONS] .. m[NONCE] .. m[REPLAY]
end

-- The record of `raw` (the value of `m:ID`), or false when it cannot be decoded.
local function decode(raw)
  if string.sub(raw, 1, 1) ~= RECORD_VERSION then return false end
  local good, m = pcall(unpacked, raw)
  if not good or TERMINAL[m[STATE]] == nil or #m < FIELDS then return false end
  return m
end

-- The record of `id`; nil when there is none, false when it cannot be decoded.
local function read(id)
  local raw = call('GET', P .. 'm:' .. id)
  if not raw then return nil end
  return decode(raw)
end

local function write(id, m)
  call('SET', P .. 'm:' .. id, RECORD_VERSION .. cmsgpack.pack(m))
end

-- Out of every set but `all`, for an id whose record does not say where it stands.
local function forsake(id)
  for _, set in ipairs({ PENDING, QUEUED, RUNNING, P .. 'completed', P .. 'failed', P .. 'cancelled', AGE }) do
    call('ZREM', set, id)
  end
end

local function blank(name, owner)
  return { 'pending', '', '', 5, 0, owner, 1, name, owner, 0, -1, 0, now, 0, 0, 0, -1, 0,
    0, 0, 0, '', '', '', 0, 0, 0, 0, '', '', 0, 0, 0, '' }
end
