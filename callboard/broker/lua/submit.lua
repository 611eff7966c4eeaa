-- uses: keys, time, fair, event, wake
-- Accept tasks: nothing -> pending (delayed) or queued.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  events "FULL:KEEP"    ARGV[2]  highest depth (pending + queued) allowed, 0 for no bound
-- ARGV[3…] one msgpack array a task: {id, body, name, owner, fairness key, weight, priority, the record's
--          fields FAIR to LOSSES and WORKER to its end, packed (records/layout.py)}, and where any of them is
--          given {…, delay_ms, due_at, expires_in_ms, nonce}, with 0 and '' for none
-- Returns  a line a task: `STATE CREATED_AT`, the time 0 for a resend, or `full 0`, or `deleted 0` for a resend
--          of what was deleted within the last minute. Behind that ` ID` where it is not the one sent: that of a
--          later run, `ID~2`, `ID~3`, …, of a foreign id whose earlier run has ended.
local replies = {}
local limit = tonumber(ARGV[2])
-- Nearly always all tasks, the ended ones too, are fewer than may wait: one look instead of two.
local depth = limit > 0 and call('ZCARD', ALL) or 0
if depth + #ARGV > limit and limit > 0 then depth = call('ZCARD', QUEUED) + call('ZCARD', PENDING) end

-- What only an id that was seen before needs: nearly none was, and closures cost more than their use.
local function resolver()
-- here: record, resend
  return resolve, write
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
local resolve, write
for index = 1, #tasks do
  local task = tasks[index]
  local id, nonce, raw, grave = task[1], task[13] or '', found[2 * index - 1], found[2 * index]
  local state, first
  if written[id] then raw = call('GET', P .. 'm:' .. id) end
  if raw or grave or nonce ~= '' then
    if not resolve then resolve, write = resolver() end
    id, state, first = resolve(id, nonce, raw, grave)
  end
  if state then
    replies[index] = state .. ' 0'
  elseif limit > 0 and depth >= limit then
    replies[index] = 'full 0'
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
-- here: park
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
    replies[index] = state .. ' ' .. NOW
  end
  if id ~= task[1] then replies[index] = replies[index] .. ' ' .. id end
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
return table.concat(replies, '\n')
