"""Imported before users' modules, in the worker and in its children: gives actors a broker.

A program that calls `dramatiq.set_broker` itself replaces it. Without this, Dramatiq would look for RabbitMQ.
"""

import dramatiq.broker

from callboard.broker.broker import CallboardBroker
from callboard.context import on_child_start
from callboard_worker import hooks

if dramatiq.broker.global_broker is None:
    dramatiq.set_broker(CallboardBroker())


@on_child_start
def boot() -> None:
    """Where bodies run, Dramatiq's hooks of a process's start have run."""
    hooks.process_booted(dramatiq.get_broker())
