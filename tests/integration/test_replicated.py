"""`CALLBOARD_DURABILITY=replicated` behind every door of Python: a replica has it, or the caller is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dramatiq
import pytest
from dramatiq.errors import ConnectionClosed

import callboard
from callboard import inspector, settings
from callboard.broker.broker import CallboardBroker
from callboard.catalog import timetable
from callboard.catalog.schedule import Schedule
from callboard.errors import Unconfirmed
from callboard.metrics import Metrics
from callboard.records.state import State
from callboard.storage import default
from callboard.storage.connection import AsyncConnection, Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.operation import Command, Confirmed
from callboard.submit import limits_of
from callboard.task import Task, isolated_registry
from callboard_scheduler import timekeeper
from callboard_scheduler.timekeeper import Timekeeper
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def replicated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_DURABILITY", "replicated")


@pytest.fixture
def alone(redis_url: str, namespace: str) -> Iterator[Connection]:
    """The process's connection, to a server without a replica."""
    callboard.configure(redis_url, namespace=namespace)
    with isolated_registry():
        yield default.connection()
    default.connection().close()


@pytest.fixture
def followed(start_server: Callable[..., EmbeddedServer], namespace: str) -> Iterator[Connection]:
    """A connection to the replica of the process's server."""
    primary, replica = start_server(), Connection(start_server().url, namespace=namespace)
    callboard.configure(primary.url, namespace=namespace)
    follow(replica, primary.url)
    with isolated_registry():
        yield replica
    default.connection().close()
    replica.close()


def test_the_settings_given_to_configure_hold_for_submits(
    redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CALLBOARD_DURABILITY")
    with isolated_registry():

        @callboard.task
        def nap() -> None:
            pass

        safe = settings.load({"CALLBOARD_DURABILITY": "replicated"})
        callboard.configure(redis_url, namespace=namespace)
        nap.submit()
        callboard.configure(redis_url, namespace=namespace, settings=safe)
        with pytest.raises(Unconfirmed):
            nap.submit()
    default.connection().close()


def follow(replica: Connection, url: str) -> None:
    """Make `replica` the replica of the server at `url`."""
    credentials, _, address = url.partition("://")[2].rpartition("@")
    host, _, port = address.partition("/")[0].partition(":")
    replica.client.config_set("masterauth", credentials.rpartition(":")[2])
    replica.client.replicaof(host, port)
    wait_until(lambda: replica.client.info("replication")["master_link_status"] == "up", 30, "a replica")


def declared() -> Task[[int], None, None]:
    @callboard.task(queue="reports")
    def build(number: int) -> None:
        """Build."""

    return build


async def test_without_a_replica_every_submit_says_so_and_is_stored(alone: Connection) -> None:
    build = declared()
    with pytest.raises(Unconfirmed, match="no replica of Redis has confirmed it within 1 s") as refused:
        build.submit(1)
    assert alone.run(inspector.get(alone.keys, refused.value.task_id)).state is State.QUEUED  # type: ignore[union-attr]
    with pytest.raises(Unconfirmed):
        await build.asubmit(2)
    with pytest.raises(Unconfirmed):
        build.submit_many([{"number": 3}, {"number": 4}])
    await default.aclose()
    assert alone.execute(Command("ZCARD", alone.keys.queue("reports").all)) == 4


async def test_memory_that_ran_out_behind_a_submit_does_not_unsay_it(
    start_server: Callable[..., EmbeddedServer], namespace: str
) -> None:
    """It is stored: "refused, the store is full" would make the caller send it a second time."""
    url = start_server().url
    connection, awaited = Connection(url, namespace=namespace), AsyncConnection(url, namespace=namespace)
    connection.client.config_set("maxmemory", 1)
    request = Confirmed(connection.keys.queue("reports").meta, 100)
    assert connection.execute(request) is False
    assert await awaited.execute(request) is False
    await awaited.close()
    connection.close()


def test_without_a_replica_dramatiq_sees_a_lost_connection(alone: Connection) -> None:
    broker = CallboardBroker(connection=alone)

    @dramatiq.actor(broker=broker, queue_name="reports")
    def report() -> None:
        pass

    with pytest.raises(ConnectionClosed):
        report.send()


async def test_with_a_replica_it_has_each_task_when_the_submit_returns(
    followed: Connection,
) -> None:
    build = declared()
    handles = [build.submit(1), await build.asubmit(2), *build.submit_many([{"number": 3}, {"number": 4}])]
    await default.aclose()
    for handle in handles:
        # Not soon: now.
        assert followed.run(inspector.get(followed.keys, handle.id)) is not None


def test_a_schedule_moves_on_only_when_a_replica_has_its_firing(
    start_server: Callable[..., EmbeddedServer], namespace: str
) -> None:
    primary = start_server()
    connection = Connection(primary.url, namespace=namespace)
    keeper = Timekeeper(connection, "k", limits=limits_of(settings.load())[0], metrics=Metrics())
    at = connection.run(timetable.tick(connection.keys))[0] - 1_000
    for name in ("first", "second"):
        connection.run(timetable.create(connection.keys, Schedule(id=name, task="a", queue="q", at=at)))

    def fired(name: str) -> bool:
        return connection.run(timetable.get(connection.keys, name)).last_task_id is not None

    keeper.tick()
    keeper.tick()
    stored = connection.keys.queue("q").all
    # One that waits for its replica holds up no other.
    assert connection.execute(Command("ZCARD", stored)) == 2
    assert not fired("first")
    assert not fired("second")
    replica = Connection(start_server().url, namespace=namespace)
    follow(replica, primary.url)
    wait_until(lambda: keeper.tick() >= 0 and fired("first") and fired("second"), 20, "both pointers to move")
    assert connection.execute(Command("ZCARD", stored)) == 2
    connection.close()
    replica.close()


def test_ticks_stay_short_and_every_schedule_gets_its_turn(
    alone: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait for a replica that is not there."""
    monkeypatch.setattr(timekeeper, "LONGEST_TICK_SECONDS", 0.1)
    keeper = Timekeeper(alone, "k", limits=limits_of(settings.load())[0], metrics=Metrics())
    at = alone.run(timetable.tick(alone.keys))[0] + 100
    for name in ("a", "b", "c"):
        alone.run(timetable.create(alone.keys, Schedule(id=name, task="a", queue="q", at=at)))
    stored = alone.keys.queue("q").all
    wait_until(lambda: keeper.tick() >= 0 and alone.execute(Command("ZCARD", stored)), 30, "the first firing")
    for expected in (2, 3):
        assert keeper.tick() == 0
        assert alone.execute(Command("ZCARD", stored)) == expected, "it waited for one of them, not for all"
