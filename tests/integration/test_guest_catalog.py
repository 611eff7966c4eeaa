"""Dramatiq's own Worker publishes its actors, so that anybody may submit one by its name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest

from callboard import Queue, inspector
from callboard.broker import broker as broker_module
from callboard.broker.actors import contract_of_actor
from callboard.broker.broker import CallboardBroker
from callboard.catalog import published
from callboard.catalog.published import Catalog
from callboard.catalog.queue import isolated_queues
from callboard.errors import InvalidDeclaration
from callboard.records.state import State
from callboard.submit import Submission, submit
from tests.support.waiting import wait_until


@pytest.fixture
def broker(redis_url: str, namespace: str) -> Iterator[CallboardBroker]:
    made = CallboardBroker(redis_url, namespace=namespace)
    with isolated_queues():
        yield made
    made.close()


@pytest.fixture
def start(broker: CallboardBroker) -> Iterator[Callable[[], None]]:
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
    yield worker.start
    worker.stop()


def catalog(broker: CallboardBroker) -> Catalog:
    return broker.connection.run(published.read(broker.keys))


def known(broker: CallboardBroker, *names: str) -> bool:
    return set(names) <= catalog(broker).tasks.keys()


def test_its_actors_are_there_with_their_schemas_and_run_by_name(
    broker: CallboardBroker, start: Callable[[], None]
) -> None:
    @dramatiq.actor(broker=broker, queue_name="sums", max_retries=2, time_limit=5_000)
    def add(a: int, b: int = 1) -> int:
        """Add two numbers."""
        return a + b

    @dramatiq.actor(broker=broker)
    async def later() -> None: ...

    start()
    wait_until(lambda: known(broker, "add", "later"), description="both in the catalog")
    found = catalog(broker).tasks["add"]
    assert (found.queue, found.description, found.terms.max_attempts) == ("sums", "Add two numbers.", 3)
    assert found.schema["required"] == ["a"]
    assert found.terms.soft_limit_ms == 5_000
    [worker] = broker.connection.run(inspector.workers(broker.keys))
    assert found.worker == worker.id

    wanted = Submission(name="add", queue="sums", payload={"a": 41})
    [accepted] = broker.connection.run(submit(broker.keys, [wanted]))

    def done() -> bool:
        record = broker.connection.run(inspector.get(broker.keys, accepted.id))
        return record is not None and record.state is State.COMPLETED and record.result == 42

    wait_until(done, description="the sum")


def test_what_is_declared_while_it_runs_follows(broker: CallboardBroker, start: Callable[[], None]) -> None:
    start()

    @dramatiq.actor(broker=broker, queue_name="late")
    def newcomer() -> None: ...

    wait_until(lambda: known(broker, "newcomer"), description="the newcomer")


def test_a_queue_is_published_by_those_who_declare_it(
    broker: CallboardBroker, start: Callable[[], None]
) -> None:
    """A guest that knows nothing of a queue's lease must not put the default in its place."""
    Queue("mine", lease=30)
    for queue in ("mine", "theirs"):
        dramatiq.actor(lambda: None, broker=broker, actor_name=f"in_{queue}", queue_name=queue)  # type: ignore[call-overload]
    start()
    wait_until(lambda: known(broker, "in_mine", "in_theirs"), description="both actors")
    assert catalog(broker).queues.keys() == {"mine"}
    assert catalog(broker).queues["mine"].lease_ms == 30_000


def test_an_actor_that_cannot_be_described_is_left_out_and_runs(
    broker: CallboardBroker,
    start: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ran: list[str] = []

    def describe(actor: Any, *rest: Any) -> Any:
        if actor.actor_name == "odd":
            raise InvalidDeclaration("It has no schema.")
        return contract_of_actor(actor, *rest)

    monkeypatch.setattr(broker_module, "contract_of_actor", describe)

    @dramatiq.actor(broker=broker)
    def odd() -> None:
        ran.append("odd")

    @dramatiq.actor(broker=broker)
    def plain() -> None: ...

    with caplog.at_level(logging.WARNING):
        start()
        wait_until(lambda: known(broker, "plain"), description="the plain one")
        odd.send()
        wait_until(lambda: ran, description="the odd one's run")
    assert not known(broker, "odd")
    assert "Actor 'odd' is not in the catalog: It has no schema." in caplog.text
