"""Slots: the places where bodies run (child processes, threads, an event loop) behind one protocol."""
