"""Redis is away for longer than leases last: running tasks go on, nothing runs twice, no attempt is spent."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from callboard.broker.waiter import LOOK_SECONDS
from callboard.handle import TaskHandle
from callboard.records.state import State
from callboard.storage import default
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.operation import Command
from callboard.storage.scripts import script
from tests.support.board import Board
from tests.support.ledger import Ledger
from tests.support.proxy import Proxy, runs
from tests.support.waiting import wait_until, wait_until_async
from tests.support.worker_process import ServiceProcess

StartWorker = Callable[..., ServiceProcess]
Outage = Callable[[float], None]


@pytest.fixture
def outages(server: EmbeddedServer, proxy: Proxy, board: Board) -> dict[str, Outage]:
    """Ways to be away for so many seconds."""

    def killed(seconds: float) -> None:
        server.kill()
        time.sleep(seconds)  # the outage
        server.start()

    def refusing(seconds: float) -> None:
        proxy.refuse()
        time.sleep(seconds)  # the outage
        proxy.accept()

    def hanging(seconds: float) -> None:
        # What was sent arrives afterwards, although those who sent it have given up.
        proxy.hang()
        time.sleep(seconds)  # the outage
        proxy.flow()

    def frozen(seconds: float) -> None:
        # The same in the server itself, whose clock goes on.
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        time.sleep(seconds)  # the outage
        os.kill(server.pid, signal.SIGCONT)

    def readonly(seconds: float) -> None:
        with as_replica(board.connection):
            time.sleep(seconds)  # the outage

    return {made.__name__: made for made in (killed, refusing, hanging, frozen, readonly)}


@contextmanager
def as_replica(connection: Connection) -> Iterator[None]:
    """The server is a replica of nobody: it answers READONLY, as after a failover to another node."""
    connection.execute(Command("REPLICAOF", "127.0.0.1", "1"))
    try:
        yield
    finally:
        connection.execute(Command("REPLICAOF", "NO", "ONE"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("way", "lease", "seconds"),
    [
        ("killed", 1.5, 6.0),
        ("refusing", 1.5, 6.0),
        ("hanging", 1.5, 6.0),
        ("frozen", 1.5, 6.0),
        ("readonly", 1.5, 6.0),
        ("hanging", 20.0, 60.0),
    ],
)
def test_an_outage_doubles_nothing_and_costs_nothing(
    way: str,
    lease: float,
    seconds: float,
    outages: dict[str, Outage],
    proxy: Proxy,
    server: EmbeddedServer,
    worker: StartWorker,
    board: Board,
    ledger: Ledger,
) -> None:
    """Eight tasks run, in threads and in processes; some end during the outage and some long after it.

    A second worker stands by, with slots free and reasons enough to think that the first one is dead.
    """
    through = proxy.url(server.url)
    busy = worker(through, slots=8, lease=lease).ready()
    short, long = seconds / 2, seconds + 2 * lease
    running = [
        task
        for queue in ("threads", "boxes")
        for nap in (short, long)
        for task in board.submit(f"{queue}.nap", 2, payload={"seconds": nap})
    ]
    wait_until(lambda: len(ledger.starts()) == 8, 30, "eight bodies")
    idle = worker(through, slots=8, lease=lease).ready()
    assert {board.record(task).worker for task in running} == {busy.id}
    began = time.monotonic()
    outages[way](seconds)
    over = time.monotonic()
    # The workers work on: new tasks start at once.
    fresh = board.submit("threads.quick", 20) + board.submit("boxes.quick", 20)
    board.await_end(fresh, 30)
    resumed = time.monotonic() - over
    records = board.await_end(running, long + 30)
    assert ledger.repeated() == {}
    assert {record.state for record in records} == {State.COMPLETED}
    assert {len(record.attempts) for record in records} == {1}
    assert [record.interruptions for record in records] == [()] * 8
    assert busy.alive
    assert idle.alive
    assert board.faults() == []
    print(f"{way} {over - began:.1f} s, lease {lease:g} s: 0 doubled; resumed in {resumed:.2f} s")


@pytest.mark.parametrize("way", ["hanging", "frozen"])
def test_commands_that_arrive_late_strand_nothing(
    way: str,
    outages: dict[str, Outage],
    proxy: Proxy,
    server: EmbeddedServer,
    worker: StartWorker,
    board: Board,
    ledger: Ledger,
) -> None:
    """Redis hangs under load for longer than callers wait: claims are sent again, and then arrive twice.

    With the default lease, a task that nobody knows to be his would show as one that ends much later.
    """
    workers = [worker(proxy.url(server.url), slots=8).ready() for _ in range(2)]
    tasks = board.submit("threads.nap", 600, payload={"seconds": 0.05})
    tasks += board.submit("boxes.nap", 200, payload={"seconds": 0.05})
    wait_until(lambda: len(ledger.ends()) > 50, 30, "some bodies")
    outages[way](12.0)
    over = time.monotonic()
    records = board.await_end(tasks, 60)
    print(f"{way} under load: all ended {time.monotonic() - over:.1f} s after it")
    assert ledger.repeated() == {}
    assert {(record.state, record.attempt, record.interruptions) for record in records} == {
        (State.COMPLETED, 1, ())
    }
    assert all(process.alive for process in workers)
    assert board.faults() == []


def test_a_claim_that_arrives_after_its_successors_strands_nothing(
    proxy: Proxy, server: EmbeddedServer, worker: StartWorker, board: Board, ledger: Ledger
) -> None:
    """A network may hold a packet back while its connection is given up and the work goes on by another.

    The claim inside must not take tasks when it comes at last: nobody waits for its answer any more.
    """
    worker(proxy.url(server.url), slots=2).ready()
    late = proxy.rule("deliver-late", runs(script("callboard.broker", "turn")), times=5, every=3, seconds=2.0)
    tasks = board.submit("threads.nap", 200, payload={"seconds": 0.05})
    began = time.monotonic()
    records = board.await_end(tasks, 60)
    print(f"{late.hits} claims arrived 2 s late: all ended after {time.monotonic() - began:.1f} s")
    assert late.hits == 5
    assert ledger.repeated() == {}
    assert {(record.state, record.attempt, record.interruptions) for record in records} == {
        (State.COMPLETED, 1, ())
    }
    assert board.faults() == []


@pytest.mark.parametrize("way", ["killed", "refusing", "hanging"])
async def test_who_waits_for_a_task_waits_through_an_outage(
    way: str,
    outages: dict[str, Outage],
    proxy: Proxy,
    server: EmbeddedServer,
    worker: StartWorker,
    board: Board,
    ledger: Ledger,
) -> None:
    """From a thread and from a coroutine, for a task that ends in the middle of it."""
    worker(slots=2).ready()
    through = Connection(proxy.url(server.url), namespace=board.keys.namespace)
    [task] = board.submit("threads.nap", payload={"seconds": 3.0})
    wait_until(lambda: task in ledger.running(), 20, "the body")
    waiting = [
        asyncio.create_task(TaskHandle(task, through).aresult(timeout=60)),
        asyncio.create_task(asyncio.to_thread(TaskHandle(task, through).result, 60)),
    ]
    # Both have subscribed before it begins.
    heard = f"{board.keys.queue('threads').done(task.rpartition('_')[2])}"
    await wait_until_async(lambda: subscribers(board, heard) == 2, 20, "two subscriptions")
    await asyncio.to_thread(outages[way], 4.0)
    over = time.monotonic()
    assert await asyncio.gather(*waiting) == [3.0, 3.0]
    assert time.monotonic() - over < 30
    await default.aclose()
    through.close()


def subscribers(board: Board, channel: str) -> int:
    [(_, count)] = board.connection.client.pubsub_numsub(channel)
    return int(count)


@pytest.mark.parametrize(("way", "seconds"), [("killed", 4.0), ("hanging", 4.0), ("readonly", 3.0)])
def test_delayed_tasks_run_on_time_after_an_outage(
    way: str,
    seconds: float,
    outages: dict[str, Outage],
    proxy: Proxy,
    server: EmbeddedServer,
    worker: StartWorker,
    board: Board,
    ledger: Ledger,
) -> None:
    """Those that were due meanwhile run at once, those due later when they are, retries after their back-off.

    Nobody polls for them; who slept until the next one is due or waited for a token has lost his connection.
    """
    worker(proxy.url(server.url), slots=4).ready()
    board.await_end(board.submit("threads.quick") + board.submit("boxes.quick"), 30)
    meanwhile = board.submit("threads.quick", 3, delay_ms=int(seconds * 500))
    meanwhile += board.submit("boxes.quick", 3, delay_ms=int(seconds * 500))
    later = [
        task
        for number in range(4)
        for queue in ("threads", "boxes")
        for task in board.submit(f"{queue}.quick", delay_ms=int(seconds * 1000) + 1500 + 700 * number)
    ]
    outages[way](seconds)
    over = time.monotonic()
    board.await_end(meanwhile, 20)
    caught_up = max(entry.at for entry in ledger.entries() if entry.task_id in meanwhile) - over
    retried = board.submit("threads.fail", 2, payload={"times": 2})
    records = board.await_end(later + retried, 30)
    late = sorted(
        record.started_at - record.due_at for record in records if record.due_at and record.started_at
    )
    assert len(late) == len(records)
    print(f"{way}: {caught_up:.2f} s to catch up; after it {late[-1]} ms late at most")
    assert caught_up < 5.0
    # Whoever only looked now and then would be late by a second, as often as not; a busy machine is so once.
    assert late[len(late) * 3 // 4] < 500
    assert late[-1] < 1000 * LOOK_SECONDS
    assert {record.attempt for record in records} == {1, 3}
    assert set(ledger.repeated()) == set(retried)
    assert board.faults() == []
