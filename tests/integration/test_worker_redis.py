"""What happens to Redis, and to a worker's hold on its tasks, while bodies run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from callboard import control, inspector
from callboard.records import log
from callboard.records.state import State
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.operation import Command
from tests.support.board import Board
from tests.support.redis_server import new_server
from tests.support.waiting import wait_until
from tests.support.worker_process import ServiceProcess, children_of, lives
from tests.support.workers import BODIES, working

StartWorker = Callable[..., ServiceProcess]
LEASE_SECONDS = 2.0


@pytest.fixture
def board(redis_url: str, namespace: str) -> Iterator[Board]:
    connection = Connection(redis_url, namespace=namespace)
    made = Board(connection)
    yield made
    assert made.faults() == []
    connection.close()


@pytest.fixture
def worker(tmp_path: Path, namespace: str, redis_url: str) -> Iterator[StartWorker]:
    """Starts workers with short leases."""
    started: list[ServiceProcess] = []

    def start(**settings: object) -> ServiceProcess:
        log = tmp_path / f"{len(started)}.log"
        chosen = {"MODULES": BODIES, "WORKER_SLOTS": 2, "WORKER_LEASE_SECONDS": LEASE_SECONDS, **settings}
        started.append(ServiceProcess("callboard_worker", log, redis_url, namespace, **chosen))
        return started[-1].ready()

    yield start
    for process in started:
        if process.alive:
            os.kill(process.pid, signal.SIGCONT)
        process.close()


def bodies_of(board: Board, *tasks: str) -> bool:
    """Whether the bodies of all of these have said something."""
    return all(board.run(log.logs(board.keys, task)).items for task in tasks)


def test_a_body_whose_lease_was_lost_is_stopped_and_its_end_refused(
    worker: StartWorker, board: Board
) -> None:
    """Given a worker that stands still for more than a lease, while its child goes on
    When another has taken its task over, and it moves again
    I expect the twin here to be killed, and the record to tell of the other's attempt alone.
    """
    frozen = worker()
    [task] = board.submit("box.nap", payload={"seconds": 300})
    wait_until(lambda: bodies_of(board, task), 20, "the body")
    os.kill(frozen.pid, signal.SIGSTOP)
    twin = children_of(frozen.pid)
    other = worker()
    wait_until(lambda: board.record(task).worker == other.id, 30, "the rescue")
    assert any(map(lives, twin)), "it ran beside the other; nobody could stop it"
    os.kill(frozen.pid, signal.SIGCONT)
    wait_until(lambda: "was lost; its body is stopped" in frozen.said, 20, "its line")
    record = board.record(task)
    assert (record.state, record.worker, record.attempt) == (State.RUNNING, other.id, 2)
    assert [attempt.outcome for attempt in record.attempts] == ["lost", None]
    [mine] = board.submit("box.tell", max_attempts=1)
    assert board.await_end([mine])[0].state is State.COMPLETED
    board.cancel(task, terminate=True)
    board.await_end([task])


def test_a_cancel_holds_when_the_task_is_rescued(worker: StartWorker, board: Board) -> None:
    """Its worker dies before it hears of it; the next one cancels it, and does not run it."""
    dead = worker()
    [task] = board.submit("box.nap", payload={"seconds": 300})
    wait_until(lambda: bodies_of(board, task), 20, "the body")
    os.kill(dead.pid, signal.SIGSTOP)
    assert not board.cancel(task)
    dead.kill()
    worker()
    [record] = board.await_end([task], 30)
    assert (record.state, record.reason, record.attempt) == (State.CANCELLED, "cancelled", 1)


def test_a_flushed_redis_stops_what_it_no_longer_knows_and_serves_what_comes(
    start_server: Callable[..., EmbeddedServer], tmp_path: Path
) -> None:
    """FLUSHALL takes tasks, scripts, registry, catalog and presence away; none of it needs a restart."""
    server = start_server()
    with working(server.url, tmp_path, WORKER_SLOTS=3, WORKER_LEASE_SECONDS=LEASE_SECONDS) as (worker, board):
        lost = [*board.submit("box.deaf"), *board.submit("thread.nap", payload={"seconds": 60})]
        lost += board.submit("coro.nap", payload={"seconds": 60})
        board.await_state(lost, State.RUNNING)
        board.connection.client.flushall()
        board.keys._registered.clear()  # else this submitter registers its queues again within a minute
        wait_until(lambda: worker.said.count("was lost; its body is stopped") == 3, 20, "three lines")
        assert {board.run(inspector.get(board.keys, task)) for task in lost} == {None}
        wait_until(lambda: board.workers() == [worker.id], 20, "its presence")
        for name in ("box.tell", "thread.tell", "coro.tell"):
            assert board.await_end(board.submit(name))[0].state is State.COMPLETED
        assert worker.get("/livez") == worker.get("/readyz") == 200
        assert board.faults() == []
        worker.term()
        assert worker.wait(30) == 0


def test_forgotten_scripts_are_loaded_again(redis_url: str, tmp_path: Path) -> None:
    with working(redis_url, tmp_path) as (_, board):
        tasks: list[str] = []
        for _ in range(20):
            board.connection.client.script_flush()
            tasks += board.submit("thread.tell", 5)
            board.run(control.pause(board.keys, "box"))
            board.connection.client.script_flush()
            board.run(control.resume(board.keys, "box"))
        for record in board.await_end(tasks):
            assert (record.state, record.attempt) == (State.COMPLETED, 1)


@pytest.fixture
def crowded(server_kind: str, tmp_path: Path) -> Iterator[EmbeddedServer]:
    with new_server(tmp_path / "crowded", server_kind) as server:
        yield server


def test_a_pool_of_two_connections_is_slow_and_not_broken(crowded: EmbeddedServer, tmp_path: Path) -> None:
    """A URL may bound the pool; threads that find it empty try again, and no end is lost."""
    url = f"{crowded.url}?max_connections=2"
    with working(url, tmp_path, WORKER_LEASE_SECONDS=LEASE_SECONDS) as (worker, board):
        tasks = board.submit("thread.flood", 40, payload={"lines": 50}) + board.submit("coro.tell", 100)
        for record in board.await_end(tasks, 60):
            assert (record.state, record.attempt) == (State.COMPLETED, 1)
        assert worker.get("/livez") == 200


def test_lost_wake_tokens_cost_a_moment_and_no_task(redis_url: str, tmp_path: Path) -> None:
    """They are taken away as fast as they come, as by a consumer that dies each time with one in its hand."""
    with working(redis_url, tmp_path) as (_, board):
        wake = board.keys.queue("thread").wake
        tasks = []
        for _ in range(5):
            tasks += board.submit("thread.tell")
            board.connection.execute(Command("DEL", wake))
        for record in board.await_end(tasks, 30):
            assert record.state is State.COMPLETED
