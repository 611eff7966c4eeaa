"""A program that runs Dramatiq's Worker and forks: the child is nobody's worker until it becomes its own."""

from __future__ import annotations

from collections.abc import Iterator

import dramatiq
import pytest

from callboard.broker.broker import CallboardBroker
from callboard.catalog import presence
from callboard.catalog.queue import isolated_queues
from tests.support.forking import forked
from tests.support.waiting import wait_until


@pytest.fixture
def broker(redis_url: str, namespace: str) -> Iterator[CallboardBroker]:
    made = CallboardBroker(redis_url, namespace=namespace)
    made.declare_queue("default")
    with isolated_queues():
        yield made
    made.close()


def present(broker: CallboardBroker) -> set[str]:
    return {shown.id for shown in broker.connection.run(presence.read(broker.keys))}


@pytest.fixture
def parent(broker: CallboardBroker) -> Iterator[str]:
    """The id of a Worker that runs in this process."""
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    wait_until(lambda: present(broker), description="the presence")
    [shown] = present(broker)
    yield shown
    worker.stop()


def test_a_child_that_closes_its_broker_leaves_its_parents_worker_alone(
    broker: CallboardBroker, parent: str
) -> None:
    def closes() -> bool:
        broker.close()
        return True

    assert forked(closes) == 0
    assert present(broker) == {parent}


def test_a_child_with_a_worker_of_its_own_is_another_worker(broker: CallboardBroker, parent: str) -> None:
    def works() -> bool:
        worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
        worker.start()
        wait_until(lambda: len(present(broker)) == 2, description="a second presence")
        worker.stop()
        broker.close()
        return present(broker) == {parent}

    assert forked(works) == 0
    assert present(broker) == {parent}


def test_a_child_consumes_while_its_parent_begins_to(broker: CallboardBroker) -> None:
    def consumes() -> bool:
        broker.consume("default", timeout=50).close()
        broker.close()
        return True

    assert forked(consumes, broker._lock) == 0
