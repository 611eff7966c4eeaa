"""A worker's start and end: what stops it with a clear line, what it waits for, and what it leaves behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from callboard.catalog import presence, published
from callboard.records.state import State
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from tests.support.board import Board
from tests.support.waiting import wait_until
from tests.support.worker_process import ServiceProcess, children_of, lives
from tests.support.workers import BODIES, working

StartWorker = Callable[..., ServiceProcess]


@pytest.fixture
def worker(tmp_path: Path, namespace: str, redis_url: str) -> Iterator[StartWorker]:
    """Starts a worker, ready or not: `worker(MODULES=…)`."""
    started: list[ServiceProcess] = []

    def start(url: str = redis_url, **settings: object) -> ServiceProcess:
        log = tmp_path / f"{len(started)}.log"
        started.append(ServiceProcess("callboard_worker", log, url, namespace, **settings))
        return started[-1]

    yield start
    for process in started:
        process.close()


def module(folder: Path, text: str, name: str = "acme_tasks") -> Path:
    """A user's module."""
    path = folder / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    return path


# What stops the start.


def test_a_module_that_does_not_import_shows_its_own_traceback(worker: StartWorker, tmp_path: Path) -> None:
    path = module(tmp_path, "import json\n\n\ndef deep():\n    return 1 / 0\n\n\ndeep()\n")
    refused = worker(MODULES=path)
    assert refused.wait(60) == 2
    assert f'File "{path}", line 5, in deep' in refused.said
    assert "ZeroDivisionError" in refused.said
    assert "callboard_worker/" not in refused.said, "our own frames are nobody's business"


TWICE = """
from callboard import Queue
Queue("q", slots=1)
Queue("q", slots=2)
"""
PLAIN_ON_THE_LOOP = """
from callboard import Queue, task
Queue("q", isolation="loop")
@task(queue="q")
def plain(): ...
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TWICE, ["Queue 'q' is declared twice", "acme_tasks.py:3", "acme_tasks.py:4"]),
        (PLAIN_ON_THE_LOOP, ["Queue 'q'", "'plain'", "async def", "acme_tasks.py:3", "acme_tasks.py:4"]),
    ],
    ids=["two declarations", "a plain function on the loop"],
)
def test_declarations_that_contradict_stop_it_with_both_places(
    worker: StartWorker, tmp_path: Path, text: str, words: list[str]
) -> None:
    refused = worker(MODULES=module(tmp_path, text))
    assert refused.wait(60) == 2
    for word in words:
        assert word in refused.said


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"WORKER_SLOT": 3}, ["CALLBOARD_WORKER_SLOT is not a setting", "CALLBOARD_WORKER_SLOTS"]),
        ({"WORKER_QUEUES": "boxx", "MODULES": BODIES}, ["'boxx'", "box"]),
    ],
    ids=["a setting", "a queue"],
)
def test_a_name_that_nobody_knows_is_told_with_what_was_meant(
    worker: StartWorker, settings: dict[str, object], words: list[str]
) -> None:
    refused = worker(**settings)
    assert refused.wait(60) == 2
    for word in words:
        assert word in refused.said


def test_a_redis_that_evicts_is_refused_with_the_reason(
    worker: StartWorker, start_server: Callable[..., EmbeddedServer]
) -> None:
    server = start_server(config={"maxmemory-policy": "allkeys-lru", "maxmemory": "50mb"})
    refused = worker(server.url, MODULES=BODIES)
    assert refused.wait(60) == 4
    assert "maxmemory-policy allkeys-lru" in refused.said
    assert "noeviction" in refused.said


# Redis comes late, goes and comes back.


def test_it_waits_for_redis_alive_and_not_ready_and_then_works(
    worker: StartWorker, start_server: Callable[..., EmbeddedServer], namespace: str
) -> None:
    server = start_server()
    server.kill()
    waiting = worker(server.url, MODULES=BODIES)
    wait_until(lambda: "Next try in" in waiting.said, 60, "its line about Redis")
    assert (waiting.get("/livez"), waiting.get("/readyz")) == (200, 503)
    server.start()
    waiting.ready()
    board = Board(Connection(server.url, namespace=namespace))
    assert "box.tell" in board.run(published.read(board.keys)).tasks
    board.await_end(board.submit("thread.tell"))
    server.kill()
    wait_until(lambda: waiting.get("/readyz") == 503, 30, "its unreadiness")
    assert waiting.get("/livez") == 200
    server.start()
    wait_until(lambda: waiting.get("/readyz") == 200, 30, "its readiness")
    [record] = board.await_end(board.submit("thread.tell"))
    assert record.state is State.COMPLETED
    board.connection.close()


def test_told_to_stop_while_it_waits_for_redis_it_ends_well(
    worker: StartWorker, start_server: Callable[..., EmbeddedServer]
) -> None:
    server = start_server()
    server.kill()
    waiting = worker(server.url, MODULES=BODIES)
    wait_until(lambda: "Next try in" in waiting.said, 60, "its line about Redis")
    waiting.term()
    assert waiting.wait(30) == 0


def test_told_to_stop_while_it_imports_it_ends_well(worker: StartWorker, tmp_path: Path) -> None:
    path = module(tmp_path, "import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(60)\n")
    importing = worker(MODULES=path)
    wait_until((tmp_path / "importing").exists, 60, "its import")
    importing.term()
    assert importing.wait(30) == 0
    assert "Traceback" not in importing.said


def test_told_to_stop_while_it_starts_it_ends_well_and_holds_nothing(
    worker: StartWorker, tmp_path: Path, redis_url: str, namespace: str
) -> None:
    """In the midst of the children's imports, which take their time, with tasks that wait."""
    path = module(
        tmp_path,
        "import multiprocessing, sys, time\nfrom callboard import task\n"
        'if "callboard_worker.slots.nursery" in sys.modules:\n    time.sleep(2)\n'
        '@task(queue="late")\ndef late(): ...\n',
    )
    connection = Connection(redis_url, namespace=namespace)
    board = Board(connection)
    tasks = board.submit("late", 5, queue="late")
    starting = worker(MODULES=path)
    wait_until(lambda: "Probes and metrics" in starting.said, 60, "its first line")
    starting.term()
    assert starting.wait(30) == 0
    for record in board.records(tasks):
        assert record.state in (State.QUEUED, State.COMPLETED)
        assert record.attempt == (record.state is State.COMPLETED)
    assert board.workers() == []
    connection.close()


# The end.


def test_a_drain_lets_the_running_end_and_gives_the_rest_back(redis_url: str, tmp_path: Path) -> None:
    with working(redis_url, tmp_path, WORKER_SLOTS=2) as (worker, board):
        running = board.submit("box.nap", 2, payload={"seconds": 5})
        board.await_state(running, State.RUNNING)
        waiting = board.submit("box.nap", 4, payload={"seconds": 1.5})
        worker.term()
        [shown] = wait_until(
            lambda: [one for one in board.run(presence.read(board.keys)) if one.draining], 10, "its presence"
        )
        assert worker.get("/readyz") == 503
        assert worker.get("/livez") == 200
        assert shown.busy == 2
        assert worker.wait(30) == 0
        for record in board.records(running):
            assert (record.state, record.attempt) == (State.COMPLETED, 1)
        for record in board.records(waiting):
            assert (record.state, record.attempt) == (State.QUEUED, 0)
        assert board.workers() == [], "it said good-bye"
        assert board.faults() == []


def test_a_second_signal_gives_everything_back_at_once(redis_url: str, tmp_path: Path) -> None:
    """Bodies of all forms, a hundred coroutines among them; no attempt is spent."""
    with working(redis_url, tmp_path, WORKER_SLOTS=3) as (worker, board):
        tasks = board.submit("box.deaf", 2, payload={"seconds": 60})
        tasks += board.submit("thread.nap", payload={"seconds": 60})
        tasks += board.submit("coro.nap", 1000, payload={"seconds": 60})
        board.await_state(tasks, State.RUNNING)
        family = children_of(worker.pid)
        worker.term()
        wait_until(lambda: "Draining" in worker.said, 30, "its drain")
        begun = time.monotonic()
        worker.term()
        assert worker.wait(50) == 0
        assert time.monotonic() - begun < 40
        for record in board.records(tasks):
            assert (record.state, record.attempt) == (State.QUEUED, 0)
            assert [stop.cause for stop in record.interruptions] == ["shutdown"]
        wait_until(lambda: not any(map(lives, family)), 30, "the end of its children")
        assert board.faults() == []


def test_a_cancel_holds_when_the_drain_gives_the_task_back(redis_url: str, tmp_path: Path) -> None:
    with working(redis_url, tmp_path, WORKER_DRAIN_SECONDS=0, WORKER_GRACE_SECONDS=60) as (worker, board):
        [task] = board.submit("box.deaf")
        board.await_state([task], State.RUNNING)
        assert not board.cancel(task)
        worker.term()
        assert worker.wait(30) == 0
        record = board.record(task)
        assert (record.state, record.reason) == (State.CANCELLED, "cancelled")


def test_threads_that_bodies_left_behind_do_not_hold_the_worker(redis_url: str, tmp_path: Path) -> None:
    """Python would wait for them as long as they live, and somebody would have to kill it."""
    with working(redis_url, tmp_path) as (worker, board):
        [record] = board.await_end(board.submit("thread.lingering"))
        assert record.result == "done"
        worker.term()
        assert worker.wait(20) == 0
        assert board.workers() == []


def test_what_cannot_be_given_back_is_told_by_the_exit_status(
    start_server: Callable[..., EmbeddedServer], tmp_path: Path
) -> None:
    """Redis is gone for good. The lease will run out; nobody is told that nothing was held."""
    server = start_server()
    with working(server.url, tmp_path, WORKER_DRAIN_SECONDS=1) as (worker, board):
        [task] = board.submit("box.deaf")
        board.await_state([task], State.RUNNING)
        server.kill()
        worker.term()
        assert worker.wait(60) == 1
        assert "could not be given back" in worker.said


def test_children_are_replaced_after_their_tasks(redis_url: str, tmp_path: Path) -> None:
    with working(redis_url, tmp_path, WORKER_SLOTS=1, WORKER_TASKS_PER_CHILD=10) as (worker, board):
        records = board.await_end(board.submit("box.tell", 30))
        assert {record.state for record in records} == {State.COMPLETED}
        assert {record.attempt for record in records} == {1}
        assert 3 <= len({record.result["pid"] for record in records}) <= 4
        assert worker.alive
