-- The schema of the store: what the newest release writes, and the oldest form that may still read it.
--
-- KEYS[1]  the hash `schema`
-- ARGV[1]  the form that this release writes   ARGV[2] the oldest form whose readers may go on
-- Returns  the form that a reader needs; nothing is written for a release that is too old
local writes = tonumber(redis.call('HGET', KEYS[1], 'writes') or 0)
local oldest = tonumber(redis.call('HGET', KEYS[1], 'oldest_reader') or 0)
if tonumber(ARGV[1]) < oldest then return oldest end
redis.call('HDEL', KEYS[1], '') -- a first write that works at maxmemory
if tonumber(ARGV[1]) > writes then redis.call('HSET', KEYS[1], 'writes', ARGV[1]) end
if tonumber(ARGV[2]) > oldest then
  redis.call('HSET', KEYS[1], 'oldest_reader', ARGV[2])
  oldest = tonumber(ARGV[2])
end
return oldest
