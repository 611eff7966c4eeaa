-- uses: keys, time, record, fair
-- Another weight for tasks of one fairness key, a bounded step. Those that are queued at a priority get new tags
-- in the order given, as if they entered anew, one behind the other, from where the key has been served; what
-- came back after its turn had come keeps its score: it stands before the priority's clock, which nothing else
-- does, or before where the key has been served. The others take the weight along for their next entry.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1]  fairness key   ARGV[2] weight   ARGV[3] priority, "" where nothing is queued
-- ARGV[4]  how many of that priority come in later steps
-- ARGV[5], ARGV[6]  what the step before returned as its second and third ("" in the first one)
-- ARGV[7…] ids (at most 100)
-- Returns  {changed, the next tag, the tail that was reserved}
local key, weight, p, later = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local step = fair_step(weight)
local f, entry, passed, tag, reserved = nil, nil, 0, tonumber(ARGV[5]), tonumber(ARGV[6])
if p then
  f = fair_load(p)
  entry = fair_key(f, p, key)
  passed = math.max(f[F_V], entry[2])
  if not tag then
    -- Who enters while this goes on comes behind them all.
    tag = passed
    reserved = tag + step * (#ARGV - 6 + later)
    entry[1] = reserved
  end
end
local changed = 0
for index = 7, #ARGV do
  local id = ARGV[index]
  local m = read(id)
  if m and m[FAIR] == key and not TERMINAL[m[STATE]] then
    m[WEIGHT] = weight
    if m[STATE] == 'queued' and m[PRIORITY] == p and m[SCORE] - p * K >= passed then
      local own = math.max(f[F_V], tag)
      m[SCORE], tag = p * K + own, own + step
      call('ZADD', QUEUED, 'XX', integer(m[SCORE]), id)
    end
    write(id, m)
    changed = changed + 1
  end
end
if p then
  if later == 0 and entry[1] == reserved then entry[1] = tag end
  entry[1] = math.max(entry[1], tag)
  f[F_FILLED] = nil
  fair_flush()
end
if changed > 0 then stamp() end
return { changed, tag and integer(tag) or '', reserved and integer(reserved) or '' }
