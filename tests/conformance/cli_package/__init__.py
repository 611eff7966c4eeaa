"""Becomes the package `tests` of the processes that Dramatiq's CLI tests start: our broker for theirs."""

import dramatiq.brokers.redis
import dramatiq.brokers.stub

from callboard.broker.broker import CallboardBroker

dramatiq.brokers.redis.RedisBroker = CallboardBroker  # type: ignore[assignment, misc]
dramatiq.brokers.stub.StubBroker = CallboardBroker  # type: ignore[assignment, misc]
