-- Show a worker's presence anew.
--
-- KEYS[1]  the worker's entry: a string that expires
-- ARGV[1]  the entry, JSON   ARGV[2] ms that it lives
-- Returns  nothing
redis.call('DEL', KEYS[1]) -- a first write that works at maxmemory
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
