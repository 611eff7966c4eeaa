-- uses: keys, time
-- What time it is for a queue. No transition.
--
-- KEYS[1]  the queue's prefix
-- Returns  ms since 1970
return now
