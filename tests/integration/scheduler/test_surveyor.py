"""The surveyor: whose figures `/metrics` shows."""

from __future__ import annotations

from contextlib import closing

import dramatiq
from prometheus_client import CollectorRegistry

from callboard.broker.broker import CallboardBroker
from callboard.catalog import presence
from callboard.catalog.presence import Presence
from callboard.maintenance.policy import Policy
from callboard.maintenance.rules import Rules
from callboard.metrics import Metrics
from callboard.storage.connection import Connection
from callboard_scheduler.surveyor import Surveyor
from tests.support.waiting import wait_until

QUEUES = ("sums", "reports")


def test_a_queue_that_only_a_worker_names_has_figures_also_when_the_worker_is_gone(
    redis_url: str, namespace: str
) -> None:
    """An autoscaler must not be blind for a queue before its first task, nor once it has scaled to zero."""
    with closing(Connection(redis_url, namespace=namespace)) as connection:
        metrics = Metrics(registry := CollectorRegistry())
        surveyor = Surveyor(connection, Rules(Policy()), metrics)
        surveyor.survey()
        demand = "callboard_queue_demand_slots"
        assert registry.get_sample_value(demand, {"queue": "reports"}) is None
        worker = Presence("w1", "host", 1, "1", 0, ["reports"], 4, 0)
        connection.run(presence.show(connection.keys, worker))
        surveyor.survey()
        assert registry.get_sample_value(demand, {"queue": "reports"}) == 0.0
        connection.run(presence.withdraw(connection.keys, "w1"))
        surveyor.survey()
        assert registry.get_sample_value(demand, {"queue": "reports"}) == 0.0


def test_dramatiqs_own_workers_are_counted_for_the_alerts_that_count_slots(
    redis_url: str, namespace: str
) -> None:
    broker = CallboardBroker(redis_url, namespace=namespace)

    @dramatiq.actor(broker=broker, queue_name="sums")
    def add(a: int, b: int) -> None: ...

    guest = dramatiq.Worker(broker, worker_threads=1)
    guest.start()
    with closing(Connection(redis_url, namespace=namespace)) as connection, closing(broker):
        own = Presence("w1", "host", 1, "1", 0, ["reports"], 4, 0)
        connection.run(presence.show(connection.keys, own))
        try:
            wait_until(lambda: len(connection.run(presence.read(connection.keys))) == 2, description="both")
            metrics = Metrics(registry := CollectorRegistry())
            Surveyor(connection, Rules(Policy()), metrics).survey()
        finally:
            guest.stop()
        found = {queue: registry.get_sample_value("callboard_guests", {"queue": queue}) for queue in QUEUES}
    assert found == {"sums": 1.0, "reports": 0.0}
