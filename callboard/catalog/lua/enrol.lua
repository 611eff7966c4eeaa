-- Put a name into a registry: a worker among those whose entries are looked for, a queue that it serves.
--
-- KEYS[1]  the set of workers' ids, or of queues' names
-- ARGV[1]  the id or the name
-- Returns  nothing
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return end
redis.call('SREM', KEYS[1], ARGV[1]) -- a first write that works at maxmemory
redis.call('SADD', KEYS[1], ARGV[1])
