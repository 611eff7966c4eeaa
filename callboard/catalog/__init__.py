"""Task contracts: names, payload schemas, queues, limits; applications and how they are found.

Declarations only: nothing in here runs a task.
"""
