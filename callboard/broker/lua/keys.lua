-- Fragment: the names of one queue's keys; the counterpart of storage/keys.py, held to it by a test.
-- KEYS[1] of every script is the queue's prefix, `NS:{QUEUE}:`: it carries the hash tag, so all of the
-- queue lives in one slot, and no script can touch another queue.
local P = KEYS[1]
local PENDING, QUEUED, RUNNING = P .. 'pending', P .. 'queued', P .. 'running'
local ALL, AGE, META = P .. 'all', P .. 'age', P .. 'meta'
local call = redis.call
