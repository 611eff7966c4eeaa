-- Write entries of the catalog; the newest by Redis TIME, which is this one, wins.
--
-- KEYS[1]  the catalog: hash of field -> "PUBLISHED_MS SEEN_MS DIGEST WORKER JSON"
-- ARGV[1]  the worker's id, then triples of field, digest, JSON (at most 100)
-- Returns  the time of publishing, ms
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
-- At maxmemory a script whose first write frees memory runs to its end; no entry is called "#".
redis.call('HDEL', KEYS[1], '#')
for i = 2, #ARGV, 3 do
  redis.call('HSET', KEYS[1], ARGV[i], table.concat({ now, now, ARGV[i + 1], ARGV[1], ARGV[i + 2] }, ' '))
end
return now
