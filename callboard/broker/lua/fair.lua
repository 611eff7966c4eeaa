-- Fragment: the fair tags of `queued`. A score is priority * K + tag; within a priority, each fairness key
-- takes turns in proportion to its weight (start-time fair queueing with integer tags).
-- Per priority: V (virtual time) and S (the highest `served`) in `meta`; per key "tail served n" in the hash
-- `fair:PRIORITY`. All of it is cached for the script's run and written once by fair_flush().
local K = 562949953421312 -- inline: 2^49: nine priorities above any tag stay exact in a double
-- One array a priority: V, S, the keys' {tail, served, n}, V and S as they stand in `meta`, whether the last
-- change was an entry (then it is not empty), and whether an id left without a key to count it off.
local F_V, F_S, F_KEYS, F_WAS_V, F_WAS_S, F_FILLED, F_LOST = 1, 2, 3, 4, 5, 6, 7 -- inline
local fair = {}

local function fair_load(p)
  local f = fair[p]
  if not f then
    local v, s = head[3], head[4]
    if p ~= 5 then v, s = unpack(call('HMGET', META, 'v' .. p, 's' .. p)) end
    v, s = (v or 0) + 0, (s or 0) + 0
    f = { v, s, {}, v, s }
    fair[p] = f
  end
  return f
end

local function fair_key(f, p, key)
  local entry = f[F_KEYS][key]
  if not entry then
    local raw = call('HGET', P .. 'fair:' .. p, key)
    if raw then
      -- At half the price of a pattern; what is no number fails here.
      local first = string.find(raw, ' ', 1, true)
      local second = string.find(raw, ' ', first + 1, true)
      entry = { string.sub(raw, 1, first - 1) + 0, string.sub(raw, first + 1, second - 1) + 0,
        string.sub(raw, second + 1) + 0 }
    else
      entry = { 0, 0, 0 }
    end
    f[F_KEYS][key] = entry
  end
  return entry
end

-- Bounded on both sides: a weight of 0 would make a tag that no number holds, and wedge the priority.
local function fair_step(weight)
  if weight == 1 then return 1000 end
  return math.max(1, math.min(1000000, math.floor(1000 / weight + 0.5)))
end

-- A new tag, on entry to `queued`: never while pending, or a delayed backlog would poison its key. Its score.
local function fair_enter(p, key, weight)
  local f = fair_load(p)
  local entry, tag = fair_key(f, p, key), f[F_V]
  if entry[1] > tag then tag = entry[1] end
  entry[1], entry[3] = tag + fair_step(weight), entry[3] + 1
  f[F_FILLED] = true
  return p * K + tag
end

-- Released and rescued tasks keep their score: being interrupted must not cost the turn.
local function fair_return(m)
  local p = m[PRIORITY]
  local f = fair_load(p)
  local entry = fair_key(f, p, m[FAIR])
  entry[1] = math.max(entry[1], m[SCORE] - p * K + fair_step(m[WEIGHT]))
  entry[3] = entry[3] + 1
  f[F_FILLED] = true
end

local function fair_exit(f, entry)
  f[F_FILLED] = false
  entry[3] = math.max(0, entry[3] - 1)
  if entry[3] == 0 then entry[1] = entry[2] end
end

-- A claim serves the key.
local function fair_serve(m)
  local p = m[PRIORITY]
  local f = fair_load(p)
  local entry, tag = fair_key(f, p, m[FAIR]), m[SCORE] - p * K
  local served = tag + fair_step(m[WEIGHT])
  if tag > f[F_V] then f[F_V] = tag end
  if served > entry[2] then entry[2] = served end
  if entry[2] > f[F_S] then f[F_S] = entry[2] end
  fair_exit(f, entry)
end

-- Cancel, purge and delete leave unserved: the key gets its place back.
local function fair_leave(m)
  local p = m[PRIORITY]
  local f = fair_load(p)
  fair_exit(f, fair_key(f, p, m[FAIR]))
end

-- Before an id whose record cannot be decoded leaves `queued`. What is left of the record may still name its
-- key (the sixth field, behind four bytes); if not, `g` in `meta` says that some key counts one too many.
local function fair_abandon(id)
  local score = call('ZSCORE', QUEUED, id)
  if not score then return end
  local p = math.floor(tonumber(score) / K)
  local raw = call('GET', P .. 'm:' .. id)
  local good, _, _, _, _, _, _, key = pcall(cmsgpack.unpack_limit, raw or '', 6, 4)
  local f = fair_load(p)
  if good and type(key) == 'string' and call('HEXISTS', P .. 'fair:' .. p, key) == 1 then
    fair_exit(f, fair_key(f, p, key))
  else
    f[F_LOST] = true
  end
end

-- Write what changed. Call it after the sets have changed: it looks whether a priority ran empty.
local function fair_flush()
  for p, f in pairs(fair) do
    local hash = P .. 'fair:' .. p
    if not f[F_FILLED] and call('ZCOUNT', QUEUED, integer(p * K), '(' .. integer((p + 1) * K)) == 0 then
      f[F_V] = math.max(f[F_V], f[F_S])
      call('UNLINK', hash)
    else
      for key, entry in pairs(f[F_KEYS]) do
        if entry[3] == 0 and entry[2] <= f[F_V] then
          call('HDEL', hash, key)
        else
          call('HSET', hash, key, string.format('%d %d %d', entry[1], entry[2], entry[3]))
        end
      end
      if f[F_LOST] then call('HSET', META, 'g' .. p, '1') end
    end
    local v, s = f[F_V], f[F_S]
    if v ~= f[F_WAS_V] or s ~= f[F_WAS_S] then
      call('HSET', META, 't', NOW, 'v' .. p, integer(v), 's' .. p, integer(s))
      last_seen = now
    end
  end
end
