-- uses: keys
-- What a queue has not done yet, in one look: a task on its way from one set to the next is not missed.
--
-- KEYS[1]  the queue's prefix
-- Returns  tasks pending, queued or running, and follow-ups that are not delivered
return call('ZCARD', PENDING) + call('ZCARD', QUEUED) + call('ZCARD', RUNNING) + call('ZCARD', P .. 'outbox')
