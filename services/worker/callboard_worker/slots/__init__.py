"""Slots: the three places where a body may run (a child process, a thread, an event loop), behind one protocol."""
