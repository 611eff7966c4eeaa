-- Fragment: promotion and claim, the way into `running`.

-- Due tasks: pending -> queued, at most `limit`. Returns how many moved.
local function promote(limit)
  local due = call('ZRANGEBYSCORE', PENDING, '-inf', NOW, 'LIMIT', 0, limit)
  for _, id in ipairs(due) do
    call('ZREM', PENDING, id)
    local m = read(id)
    if not m then
      bury(id)
    elseif m[EXPIRES] > 0 and m[EXPIRES] <= now then
      finish(id, m, 'cancelled', 'expired')
      write(id, m)
      event('x', id, m)
      announce(id, m)
    else
      enter_queued(id, m)
      write(id, m)
      event('q', id, m)
    end
  end
  return #due
end

-- Milliseconds until the earliest pending task is due; -1 when none is.
local function next_due()
  local first = call('ZRANGE', PENDING, 0, 0, 'WITHSCORES')
  if not first[2] or first[2] == 'inf' then return -1 end
  return math.max(0, tonumber(first[2]) - now)
end

local CLAIM_BYTES = 1048576 -- inline

-- Whether a claim comes after its successor. A network may hold a packet back whose connection was given up
-- long ago: what that claim took now, nobody would run. Only numbered nonces (`N:RANDOM`) can be told apart.
local function outdated(nonce, last)
  local number, latest = string.match(nonce, '^(%d+):'), string.match(last, '^(%d+):')
  return number and latest and tonumber(number) < tonumber(latest)
end

-- queued -> running for up to `want` tasks. A repeated nonce answers the same ids again, so a lost reply
-- strands nothing. Returns an array of {id, token, i, m} (i and m as stored), and how many left `queued`.
local function claim(worker, nonce, want, lease_ms)
  local claimed = {}
  local before = call('HGET', P .. 'claims', worker)
  if before then
    local words = {}
    for word in string.gmatch(before, '%S+') do words[#words + 1] = word end
    if words[1] == nonce then
      for index = 2, #words do
        local id, m = words[index], read(words[index])
        if m and m[STATE] == 'running' and string.find(m[TOKEN], '.' .. nonce .. '-', 1, true) then
          claimed[#claimed + 1] = { id, m[TOKEN], call('GET', P .. 'i:' .. id) or '',
            call('GET', P .. 'm:' .. id) }
        end
      end
      return claimed, 0
    end
    if outdated(nonce, words[1]) then return claimed, 0 end
  end
  if head[2] then return claimed, 0 end
  local ids = call('ZRANGE', QUEUED, 0, want - 1)
  if #ids == 0 then return claimed, 0 end
  local raws, seen, fetched = nil, 0, 0
  local bytes, moved, taken, leases, stored = 0, 0, {}, {}, {}
  local memo = { nonce }
  for index, id in ipairs(ids) do
    if index > fetched then
      -- Four, then as many as are likely to fit: sixty-four large ones would be read for a few that are taken.
      local size = index == 1 and 4 or math.max(1, math.floor((CLAIM_BYTES - bytes) * (index - 1) / (bytes + 1)))
      local record_keys = {}
      seen, fetched = fetched, math.min(#ids, fetched + size)
      for at = index, fetched do
        local place = 2 * (at - seen)
        record_keys[place - 1], record_keys[place] = P .. 'm:' .. ids[at], P .. 'i:' .. ids[at]
      end
      raws = call('MGET', unpack(record_keys))
    end
    local body = raws[2 * (index - seen)]
    local m = raws[2 * (index - seen) - 1]
    m = m and decode(m)
    if not m or not body then
      if m then
        call('ZREM', QUEUED, id)
        fair_leave(m)
      end
      bury(id)
      moved = moved + 1
    elseif m[EXPIRES] > 0 and m[EXPIRES] <= now then
      call('ZREM', QUEUED, id)
      call('ZREM', AGE, id)
      fair_leave(m)
      finish(id, m, 'cancelled', 'expired')
      write(id, m)
      event('x', id, m)
      announce(id, m)
      moved = moved + 1
    else
      bytes = bytes + #body
      if #taken > 0 and bytes > CLAIM_BYTES then break end
      if #taken == 0 then call('ZREM', QUEUED, id) end
      fair_serve(m)
      m[STATE], m[REASON], m[OUTCOME], m[WORKER] = 'running', '', '', worker
      m[ATTEMPT], m[STARTED] = m[ATTEMPT] + 1, now
      if m[WAIT] < 0 then m[WAIT] = math.max(0, now - math.max(m[CREATED], m[DUE])) end
      m[PROGRESS_SEQ], m[LOG_SEQ] = 0, 0
      m[TOKEN] = integer(m[ATTEMPT]) .. '.' .. nonce .. '-' .. (#taken + 1)
      local packed = RECORD_VERSION .. cmsgpack.pack(m)
      stored[#stored + 1], stored[#stored + 2] = P .. 'm:' .. id, packed
      event('t', id, m)
      taken[#taken + 1], memo[#memo + 1] = id, id
      leases[#leases + 1] = integer(now + lease_ms)
      leases[#leases + 1] = id
      claimed[#claimed + 1] = { id, m[TOKEN], body, packed }
    end
  end
  if #taken > 0 then
    call('MSET', unpack(stored))
    call('ZREM', QUEUED, unpack(taken))
    call('ZREM', AGE, unpack(taken))
    call('ZADD', RUNNING, unpack(leases))
    call('HSET', P .. 'claims', worker, table.concat(memo, ' '))
  end
  return claimed, moved + #taken
end
