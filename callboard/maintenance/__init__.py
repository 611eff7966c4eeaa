"""Loops that keep the queues in order."""
