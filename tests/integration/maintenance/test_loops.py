"""Who runs the loops, and what does not stop them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from callboard.catalog.published import publish
from callboard.catalog.queue import Queue, isolated_queues
from callboard.maintenance import lease
from callboard.maintenance.loops import Loops
from callboard.maintenance.policy import PLATFORM_QUEUE, Policy
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.operation import Command
from tests.support import tasks
from tests.support.waiting import wait_until

Start = Callable[..., Loops]


@pytest.fixture
def start(connection: Connection) -> Iterator[Start]:
    """Starts loops that end with the test."""
    started: list[Loops] = []

    def begin(holder: str, **options: object) -> Loops:
        loops = Loops(connection, holder, **options)  # type: ignore[arg-type]
        started.append(loops)
        loops.start()
        return loops

    yield begin
    for loops in started:
        loops.stop()


def holder(connection: Connection, queue: str = "q") -> str | None:
    found = connection.execute(Command("ZRANGE", connection.keys.queue(queue).loops, 0, -1))
    return found[0].decode().split(" ")[1] if found else None


def test_one_process_at_a_time_holds_a_queue(connection: Connection, start: Start) -> None:
    first = start("h1", queues=lambda: ["q"])
    wait_until(lambda: holder(connection) == "h1", description="the lease")
    second = start("h2", queues=lambda: ["q"])
    wait_until(lambda: second.ticks > 3, description="some rounds of the second")
    assert holder(connection) == "h1"
    first.stop()
    # Between the two looks the second may have followed.
    assert holder(connection) in (None, "h2"), "given up at once, not after five seconds"
    wait_until(lambda: holder(connection) == "h2", description="the second to follow")


def test_a_dead_holder_is_followed(connection: Connection, start: Start) -> None:
    # It took the lease and was killed: nobody gives it up.
    assert connection.run(lease.take(connection.keys, "q", "dead"))
    start("h2", queues=lambda: ["q"])
    wait_until(lambda: holder(connection) == "h2", timeout=15, description="the second to follow")


def test_a_lease_can_be_taken_sent_twice_and_given_up(connection: Connection) -> None:
    keys = connection.keys
    assert connection.run(lease.take(keys, "q", "h1"))
    assert connection.run(lease.take(keys, "q", "h1"))
    assert not connection.run(lease.take(keys, "q", "h2"))
    connection.run(lease.let_go(keys, "q", "h2"))
    assert holder(connection) == "h1", "only its holder can give it up"
    connection.run(lease.let_go(keys, "q", "h1"))
    assert connection.run(lease.take(keys, "q", "h2"))


def test_a_lease_can_be_taken_at_maxmemory(
    start_server: Callable[..., EmbeddedServer], namespace: str
) -> None:
    connection = Connection(start_server(config={"maxmemory": "1mb"}).url, namespace=namespace)
    assert connection.run(lease.take(connection.keys, "q", "h1"))
    connection.close()


def test_without_a_list_every_known_queue_and_the_platforms_are_cared_for(
    connection: Connection, start: Start
) -> None:
    tasks.accept(connection, "a")
    tasks.accept(connection, "b")
    start("h1")
    wanted = ("a", "b", PLATFORM_QUEUE)
    wait_until(
        lambda: {holder(connection, queue) for queue in wanted} == {"h1"}, description="all to be held"
    )


def test_a_queue_that_appears_later_is_cared_for(connection: Connection, start: Start) -> None:
    loops = start("h1")
    wait_until(lambda: loops.ticks > 1, description="a first round")
    tasks.accept(connection, "late", delay_ms=1)
    wait_until(lambda: tasks.size(connection, "late", "queued") == 1, description="its promotion")


def test_a_fault_in_one_loop_or_queue_stops_no_other(
    connection: Connection, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    broken = connection.keys.queue("broken")
    connection.execute(Command("SET", broken.loops, "not a sorted set"))
    half = connection.keys.queue("half")
    connection.execute(Command("SET", half.state("running"), "not a sorted set"))
    tasks.accept(connection, "half", delay_ms=1)
    tasks.accept(connection, "good", delay_ms=1)
    with caplog.at_level(logging.CRITICAL, logger="callboard.maintenance"):
        loops = start("h1", queues=lambda: ["broken", "half", "good"])
        wait_until(lambda: tasks.size(connection, "good", "queued") == 1, description="the good queue")
        wait_until(lambda: tasks.size(connection, "half", "queued") == 1, description="the half good queue")
    assert loops.alive()


def test_a_queue_has_the_lease_and_retention_that_it_declares(connection: Connection, start: Start) -> None:
    with isolated_queues():
        Queue("q", lease=2, retention=timedelta(hours=1), wait_objective=7)
        connection.run(publish(connection.keys, [], ["q"], "w1"))
    loops = start("h1", queues=lambda: ["q", "other"], policy=Policy(failed_count=5))
    wait_until(lambda: loops.rules.wait_objective_seconds("q") == 7, description="the declaration to be read")
    assert loops.rules("q") == Policy(
        lease_seconds=2, completed_ms=3_600_000, failed_ms=3_600_000, failed_count=5
    )
    assert loops.rules("other") == Policy(failed_count=5)
    assert loops.watch.interval_seconds == pytest.approx(0.1), "as short as the shortest lease asks for"


def test_liveness_is_rounds_and_not_redis(
    start_server: Callable[..., EmbeddedServer], namespace: str
) -> None:
    server = start_server()
    connection = Connection(server.url, namespace=namespace)
    loops = Loops(connection, "h1")
    assert not loops.alive()
    assert not loops.reachable
    loops.start()
    wait_until(lambda: loops.reachable, description="a first round")
    server.kill()
    wait_until(lambda: not loops.reachable, description="the outage to be seen")
    before = loops.ticks
    wait_until(lambda: loops.ticks > before + 1, description="rounds during the outage")
    assert loops.alive()
    loops.stop()
    assert not loops.alive()
    connection.close()
