-- uses: keys
-- Forget a consumer's last claim, when it closes or its presence has gone.
--
-- KEYS[1]  the queue's prefix
-- ARGV[1…] workers
-- Returns  how many were known
return call('HDEL', P .. 'claims', unpack(ARGV))
