"""Server-sent events: one reader of the queues' streams for the process, any number of listeners."""
