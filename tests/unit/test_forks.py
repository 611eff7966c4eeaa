"""What a forked child inherits locked is unlocked there: it does not have the thread that would do it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from callboard.broker.broker import CallboardBroker
from callboard.catalog import queue as queues
from callboard.catalog.queue import Queue, isolated_queues
from callboard.metrics import Metrics, metrics
from tests.support.forking import forked


def test_a_child_declares_queues() -> None:
    with isolated_queues():
        assert forked(lambda: Queue("reports", slots=2), queues._lock) == 0


def test_a_child_connects_its_broker() -> None:
    broker = CallboardBroker("redis://localhost:1")
    assert forked(lambda: broker.connection, broker._lock) == 0


def _locked(kept: Metrics) -> Iterator[Any]:
    """Every lock on the way of a count, of an observation and of a scrape."""
    counter, histogram = kept.tasks_submitted, kept.task_wait_seconds
    counted, observed = counter.labels("q", "n"), histogram.labels("q")
    yield from (kept.registry, kept.snapshots, counter, histogram, counted._value)
    yield from (observed._sum, *observed._buckets, kept.redis_errors._value)


@pytest.mark.parametrize("part", range(len(list(_locked(Metrics())))))
def test_a_child_counts_and_is_scraped(part: int) -> None:
    def counts() -> bool:
        metrics.tasks_submitted.labels("q", "n").inc()
        metrics.task_wait_seconds.labels("q").observe(0.1)
        metrics.redis_errors.inc()
        return b'callboard_tasks_submitted_total{name="n",queue="q"}' in metrics.exposition()[0]

    assert forked(counts, list(_locked(metrics))[part]._lock) == 0
