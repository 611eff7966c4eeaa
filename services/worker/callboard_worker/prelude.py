"""Imported before users' modules, in the worker and in its children: gives actors a broker.

A program that calls `dramatiq.set_broker` itself replaces it. Without this, Dramatiq would look for RabbitMQ.
"""

import dramatiq.broker

from callboard.broker.broker import CallboardBroker

if dramatiq.broker.global_broker is None:
    dramatiq.set_broker(CallboardBroker())
