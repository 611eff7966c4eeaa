"""The runner inside this process, where a test can reach its parts."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from callboard import clock, settings
from callboard.broker.broker import CallboardBroker
from callboard.catalog.contract import contract_of
from callboard.catalog.resolution import resolve_queues
from callboard.records.state import State
from callboard.storage.connection import Connection
from callboard_worker.definition import Definition
from callboard_worker.runner import Runner
from callboard_worker.slots.slot import Assignment, Host, Outcome
from callboard_worker.slots.thread import ThreadSlots
from tests.support.board import Board
from tests.support.waiting import wait_until


class Bodies:
    """What the slots run instead of tasks' functions: they wait until the test lets them go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.started: list[str] = []

    def invoke(self, of: Assignment, _: Host) -> Outcome:
        self.started.append(of.task_id)
        if of.name == "hold":
            assert self.go.wait(30)
        return Outcome("completed", result=b"1")


@pytest.fixture
def bodies() -> Bodies:
    return Bodies()


@pytest.fixture
def board(redis_url: str, namespace: str) -> Iterator[Board]:
    connection = Connection(redis_url, namespace=namespace)
    yield Board(connection)
    connection.close()


@pytest.fixture
def runner(board: Board, bodies: Bodies) -> Iterator[Runner]:
    """Of two thread slots, for the tasks `quick` and `hold` of the queue `slow`; not started."""

    def function() -> None:
        """Never called."""

    known = {
        name: Definition(contract_of(function, name=name, queue="slow"), actor=False)
        for name in ("quick", "hold")
    }
    read = settings.load({"CALLBOARD_WORKER_SLOTS": "2"})
    queues = resolve_queues([definition.contract for definition in known.values()], read, ["slow"])
    made = Runner(
        board.connection,
        CallboardBroker(connection=board.connection, middleware=[]),
        known,
        queues,
        slots=2,
        make_slots=lambda _, capacity, runner: ThreadSlots(capacity, runner, invoke=bodies.invoke),
    )
    yield made
    bodies.go.set()
    if made._started:
        assert made.drain(5)


def test_a_worker_that_waited_long_for_redis_is_alive(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that takes minutes, in the wait for Redis or in imports, is no reason to be killed."""
    now = clock.monotonic
    monkeypatch.setattr(clock, "monotonic", lambda: now() + 600)
    assert runner.live()
    runner.start()
    assert runner.live()
    assert runner.ready()


def test_a_renewal_that_crosses_its_tasks_end_leaves_nothing_behind(runner: Runner, board: Board) -> None:
    """Else it would be renewed, in vain, as long as the worker lives."""
    runner.start()
    [task] = board.submit("quick", queue="slow")
    board.await_end([task])
    wait_until(lambda: not runner.keeper._held, 5, "an empty hand")
    token = "1.n-1"
    local = task.removeprefix("slow_")
    runner.keeper.hold("slow", local, token)  # as a renewal does that was answered before the end was
    assert runner.keeper._renew()
    assert not runner.keeper._held


def test_what_waits_too_long_for_a_slot_goes_back(runner: Runner, board: Board, bodies: Bodies) -> None:
    """Given bodies so short that tasks are held beyond the slots
    When long ones come
    I expect those that cannot start here to be there for other, idle workers, at no attempt.
    """
    runner.start()
    board.await_end(board.submit("quick", 400, queue="slow"))
    assert runner.dispatcher.lanes["slow"].extra() > 0
    long = board.submit("hold", 20, queue="slow")
    wait_until(lambda: len(bodies.started) == 402, 5, "two long bodies")
    wait_until(lambda: board.size("slow", State.QUEUED) == 18, 5, "the others to be given back")
    assert board.size("slow", State.RUNNING) == 2
    waiting = [record for record in board.records(long) if record.state is State.QUEUED]
    assert {record.attempt for record in waiting} == {0}
    bodies.go.set()
    for record in board.await_end(long):
        assert (record.state, record.attempt) == (State.COMPLETED, 1)
