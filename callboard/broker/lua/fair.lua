-- Fragment: the fair tags of `queued`. A score is priority * K + tag; within a priority, each fairness key
-- takes turns in proportion to its weight (start-time fair queueing with integer tags).
-- Per priority: V (virtual time) and S (the highest `served`) in `meta`; per key "tail served n" in the hash
-- `fair:PRIORITY`. All of it is cached for the script's run and written once by fair_flush().
local K = 562949953421312 -- inline: 2^49: nine priorities above any tag stay exact in a double
local fair_v, fair_s, fair_keys = {}, {}, {}
-- As they stand in `meta`; and whether the priority's last change was an entry: then it is not empty.
local fair_was, fair_filled, fair_lost = {}, {}, {}

local function fair_load(p)
  if not fair_v[p] then
    local got = p == 5 and { head[3], head[4] } or call('HMGET', META, 'v' .. p, 's' .. p)
    fair_v[p], fair_s[p], fair_keys[p] = tonumber(got[1] or 0), tonumber(got[2] or 0), {}
    fair_was[p] = { fair_v[p], fair_s[p] }
  end
  return fair_keys[p]
end

local function fair_key(p, key)
  local keys = fair_load(p)
  local entry = keys[key]
  if not entry then
    local raw = call('HGET', P .. 'fair:' .. p, key)
    if raw then
      local tail, served, n = string.match(raw, '^(%d+) (%d+) (%d+)$')
      entry = { tonumber(tail), tonumber(served), tonumber(n) }
    else
      entry = { 0, 0, 0 }
    end
    keys[key] = entry
  end
  return entry
end

-- Bounded on both sides: a weight of 0 would make a tag that no number holds, and wedge the priority.
local function fair_step(m)
  return math.max(1, math.min(1000000, math.floor(1000 / m[WEIGHT] + 0.5)))
end

-- A new tag, on entry to `queued`: never while pending, or a delayed backlog would poison its key.
local function fair_enter(m)
  local p = m[PRIORITY]
  local entry = fair_key(p, m[FAIR])
  local tag = math.max(fair_v[p], entry[1])
  entry[1], entry[3] = tag + fair_step(m), entry[3] + 1
  m[SCORE] = p * K + tag
  fair_filled[p] = true
end

-- Released and rescued tasks keep their score: being interrupted must not cost the turn.
local function fair_return(m)
  local p = m[PRIORITY]
  local entry = fair_key(p, m[FAIR])
  entry[1] = math.max(entry[1], m[SCORE] - p * K + fair_step(m))
  entry[3] = entry[3] + 1
  fair_filled[p] = true
end

local function fair_exit(p, entry)
  fair_filled[p] = false
  entry[3] = math.max(0, entry[3] - 1)
  if entry[3] == 0 then entry[1] = entry[2] end
end

-- A claim serves the key.
local function fair_serve(m)
  local p = m[PRIORITY]
  local entry = fair_key(p, m[FAIR])
  local tag = m[SCORE] - p * K
  fair_v[p] = math.max(fair_v[p], tag)
  entry[2] = math.max(entry[2], tag + fair_step(m))
  fair_s[p] = math.max(fair_s[p], entry[2])
  fair_exit(p, entry)
end

-- Cancel, purge and delete leave unserved: the key gets its place back.
local function fair_leave(m)
  fair_exit(m[PRIORITY], fair_key(m[PRIORITY], m[FAIR]))
end

-- Before an id whose record cannot be decoded leaves `queued`. What is left of the record may still name its
-- key (the sixth field, behind four bytes); if not, `g` in `meta` says that some key counts one too many.
local function fair_abandon(id)
  local score = call('ZSCORE', QUEUED, id)
  if not score then return end
  local p = math.floor(tonumber(score) / K)
  local raw = call('GET', P .. 'm:' .. id)
  local good, _, _, _, _, _, _, key = pcall(cmsgpack.unpack_limit, raw or '', 6, 4)
  fair_load(p)
  if good and type(key) == 'string' and call('HEXISTS', P .. 'fair:' .. p, key) == 1 then
    fair_exit(p, fair_key(p, key))
  else
    fair_lost[p] = true
  end
end

-- Write what changed. Call it after the sets have changed: it looks whether a priority ran empty.
local function fair_flush()
  for p, keys in pairs(fair_keys) do
    local hash = P .. 'fair:' .. p
    if not fair_filled[p] and call('ZCOUNT', QUEUED, integer(p * K), '(' .. integer((p + 1) * K)) == 0 then
      fair_v[p] = math.max(fair_v[p], fair_s[p])
      call('UNLINK', hash)
    else
      for key, entry in pairs(keys) do
        if entry[3] == 0 and entry[2] <= fair_v[p] then
          call('HDEL', hash, key)
        else
          call('HSET', hash, key, string.format('%d %d %d', entry[1], entry[2], entry[3]))
        end
      end
      if fair_lost[p] then call('HSET', META, 'g' .. p, '1') end
    end
    local v, s = fair_v[p], fair_s[p]
    if v ~= fair_was[p][1] or s ~= fair_was[p][2] then
      call('HSET', META, 't', NOW, 'v' .. p, integer(v), 's' .. p, integer(s))
      last_seen = now
    end
  end
end
