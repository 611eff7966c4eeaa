"""The runner inside this process: who gets its slots, and what it does when one of its parts is stuck."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import pytest

from callboard import clock, control
from callboard.records import layout
from callboard.records.state import State
from callboard.storage.connection import Connection
from callboard.storage.operation import Command, ScriptCall
from callboard_worker.runner import Runner
from callboard_worker.slots import loop, process_slot
from callboard_worker.slots.process import ProcessSlots
from tests.support.board import Board
from tests.support.in_process import Bodies, runner_of
from tests.support.recording import Recorder, assignment, run
from tests.support.waiting import wait_until

MakeRunner = Callable[..., Runner]


@pytest.fixture
def bodies() -> Bodies:
    return Bodies()


@pytest.fixture
def board(redis_url: str, namespace: str) -> Iterator[Board]:
    connection = Connection(redis_url, namespace=namespace)
    made = Board(connection)
    yield made
    assert made.faults() == []
    connection.close()


@pytest.fixture
def runner(board: Board, bodies: Bodies) -> Iterator[MakeRunner]:
    """Makes a runner: `runner(first={}, second={"slots": 1})`, not started."""
    made: list[Runner] = []

    def make(slots: int = 2, grace_seconds: float = 5.0, **queues: dict[str, Any]) -> Runner:
        made.append(
            runner_of(board.connection, bodies, queues or {"q": {}}, slots=slots, grace_seconds=grace_seconds)
        )
        return made[-1]

    yield make
    bodies.let_all_go()
    for one in made:
        assert not one._started or one.drain(15)


# Slots.


def test_queues_share_slots_and_the_first_has_precedence(
    runner: MakeRunner, board: Board, bodies: Bodies
) -> None:
    """Two slots, work for both queues from the beginning: the second gets what the first leaves."""
    second = board.submit("second.hold", 4)
    first = board.submit("first.hold", 4)
    runner(first={}, second={}).start()
    wait_until(lambda: len(bodies.started) == 2, 30, "two bodies")

    def have_started(count: int) -> bool:
        return len(bodies.started) == count

    for count in range(3, 9):
        bodies.let_go()
        wait_until(partial(have_started, count), 30, "the next body")
    assert set(bodies.started[:4]) == set(first)
    assert set(bodies.started[4:]) == set(second)
    assert bodies.peak[""] == 2


def test_a_queue_has_no_more_slots_than_it_declares(runner: MakeRunner, board: Board, bodies: Bodies) -> None:
    """And its loop has slots of its own, which the shared ones do not count."""
    tasks = board.submit("narrow.hold", 4) + board.submit("wide.hold", 6) + board.submit("loop.hold", 6)
    made = runner(3, narrow={"slots": 1}, wide={}, loop={"isolation": "loop", "slots": 5})
    made.start()
    wait_until(lambda: len(bodies.started) == 8, 30, "three shared bodies and five on the loop")
    assert {lane.busy for lane in made.dispatcher.lanes.values()} == {1, 2, 5}
    assert board.size("loop", State.QUEUED) == 1, "nothing is claimed that cannot start"
    assert board.size("wide", State.QUEUED) == 4
    assert board.size("narrow", State.QUEUED) == 3
    bodies.let_all_go()
    board.await_end(tasks)
    assert (bodies.peak["narrow"], bodies.peak["loop"]) == (1, 5)


def test_a_queue_that_is_paused_while_others_run_is_left_alone(
    runner: MakeRunner, board: Board, bodies: Bodies
) -> None:
    """What is held of it ends; nothing more is claimed; the other queue gets all the slots."""
    runner(first={}, second={}).start()
    [held] = board.submit("first.hold")
    wait_until(lambda: bodies.started == [held], 30, "its body")
    board.run(control.pause(board.keys, "first"))
    waiting = board.submit("first.hold", 3)
    others = board.submit("second.hold", 3)
    bodies.let_go()
    wait_until(lambda: len(bodies.started) == 3, 30, "two bodies of the other queue")
    assert set(bodies.started[1:]) <= set(others)
    assert board.states(waiting) == {"queued": 3}
    board.run(control.resume(board.keys, "first"))
    bodies.let_all_go()
    board.await_end(waiting + others)


def test_an_urgent_task_overtakes_what_waits(runner: MakeRunner, board: Board, bodies: Bodies) -> None:
    made = runner(1)
    made.start()
    board.await_end(board.submit("q.quick", 400))
    [running] = board.submit("q.hold")
    wait_until(lambda: bodies.started[-1] == running, 30, "its body")
    waiting = board.submit("q.hold", 30)
    [urgent] = board.submit("q.hold", priority=0)
    # Some are held beyond the slot, for bodies were short so far; they go back when that was wrong.
    wait_until(lambda: board.size("q", State.RUNNING) == 1, 30, "what was claimed too early to go back")
    bodies.let_go()
    wait_until(lambda: len(bodies.started) == 402, 30, "the next body")
    assert bodies.started[-1] == urgent
    bodies.let_all_go()
    board.await_end(waiting)


def test_what_waits_too_long_for_a_slot_goes_back(runner: MakeRunner, board: Board, bodies: Bodies) -> None:
    """Given bodies so short that tasks are held beyond the slots
    When long ones come
    I expect those that cannot start here to be there for other, idle workers, at no attempt.
    """
    made = runner()
    made.start()

    def held_beyond_the_slots() -> bool:
        board.await_end(board.submit("q.quick", 100))
        return made.dispatcher.lanes["q"].extra() > 0

    wait_until(held_beyond_the_slots, 30, "a mean of bodies that no other process held up")
    count = len(bodies.started)
    long = board.submit("q.hold", 20)
    wait_until(lambda: len(bodies.started) == count + 2, 30, "two long bodies")
    wait_until(lambda: board.size("q", State.QUEUED) == 18, 20, "the others to be given back")
    assert board.size("q", State.RUNNING) == 2
    waiting = [record for record in board.records(long) if record.state is State.QUEUED]
    assert {record.attempt for record in waiting} == {0}
    assert {record.wait_ms for record in waiting} == {None}, "they go on waiting for their start"
    bodies.let_all_go()
    for record in board.await_end(long):
        assert (record.state, record.attempt) == (State.COMPLETED, 1)


def test_tasks_that_have_to_run_alone_leave_others_their_turn(
    runner: MakeRunner, board: Board, bodies: Bodies
) -> None:
    """Twenty whose lease ran out twice, in the queue of precedence: the other waits for one, not for all."""
    suspects = board.submit("first.nap", 20)
    for task in suspects:
        key = board.keys.queue("first").mutable(task.removeprefix("first_"))
        raw = board.connection.execute(Command("GET", key))
        fields = msgpack.unpackb(raw[1:], raw=True)
        fields[layout.Mutable._fields.index("losses")] = 2
        packed = msgpack.packb(fields, use_bin_type=False)
        board.connection.execute(Command("SET", key, layout.VERSION + packed))
    others = board.submit("second.nap", 3)
    runner(first={}, second={}).start()
    board.await_end(others)
    before = bodies.started[: max(bodies.started.index(task) for task in others)]
    assert sum(task in suspects for task in before) <= 4
    for record in board.await_end(suspects):
        assert (record.state, record.attempt) == (State.COMPLETED, 1)
    assert bodies.peak["first"] == 1


# Health.


def test_a_worker_that_waited_long_for_redis_is_alive(
    runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that takes minutes, in the wait for Redis or in imports, is no reason to be killed."""
    made = runner()
    now = clock.monotonic
    monkeypatch.setattr(clock, "monotonic", lambda: now() + 600)
    assert made.live() is True
    made.start()
    assert made.live() is True
    assert made.ready()


def test_a_renewal_that_crosses_its_tasks_end_leaves_nothing_behind(runner: MakeRunner, board: Board) -> None:
    """Else it would be renewed, in vain, as long as the worker lives."""
    made = runner()
    made.start()
    [task] = board.submit("q.quick")
    board.await_end([task])
    wait_until(lambda: not made.keeper._held, 30, "an empty hand")
    # As a renewal does that was answered before the end was.
    made.keeper.hold("q", task.removeprefix("q_"), "1.n-1")
    assert made.keeper._renew()
    assert not made.keeper._held


def test_an_end_that_is_on_its_way_when_the_drain_gives_up_is_still_held(
    board: Board, bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the worker would tell, by its exit status, that all was recorded."""
    made = runner_of(board.connection, bodies, {"q": {}})
    made.start()
    [task] = board.submit("q.hold")
    wait_until(lambda: bodies.started == [task], 30, "its body")
    under_way, go_on = threading.Event(), threading.Event()
    execute = board.connection.execute

    def stuck(request: Any) -> Any:
        ends = isinstance(request, ScriptCall) and request.script.name == "turn" and len(request.args) > 4
        if ends:
            under_way.set()
            assert go_on.wait(30)
        return execute(request)

    with monkeypatch.context() as patch:
        patch.setattr(board.connection, "execute", stuck)
        bodies.let_all_go()
        assert under_way.wait(10)
        assert not made.drain(0)
    go_on.set()
    assert board.await_end([task])[0].state is State.COMPLETED
    assert made.pump.stop(10)


def test_nothing_is_claimed_for_a_loop_that_is_blocked(
    runner: MakeRunner, board: Board, bodies: Bodies
) -> None:
    """What comes meanwhile is there for other workers; afterwards the loop goes on."""
    made = runner(loop={"isolation": "loop", "slots": 100}, q={})
    made.start()
    board.await_end(board.submit("loop.quick"))
    board.submit("loop.block")
    wait_until(lambda: len(bodies.started) == 2, 30, "the body that blocks")
    board.submit("loop.quick", 3)
    wait_until(lambda: made.room("loop") == 0, 30, "its refusal")
    late = board.submit("loop.quick", 3)
    [elsewhere] = board.submit("q.quick")
    board.await_end([elsewhere])
    assert board.states(late) == {"queued": 3}
    assert made.live() is True
    bodies.let_all_go()
    board.await_end(late)


def test_a_loop_that_is_blocked_beyond_every_limit_fails_the_liveness_probe(
    runner: MakeRunner, board: Board, bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before: a new process would only run the same body again, and no attempt would be spent."""
    monkeypatch.setattr(loop, "_WEDGED_SECONDS", 0.5)
    made = runner(grace_seconds=0.2, loop={"isolation": "loop", "soft_limit": 1.5, "hard_limit": 1.5})
    made.start()
    [task] = board.submit("loop.block", max_attempts=1)
    wait_until(lambda: bodies.started == [task], 30, "its body")
    assert made.live() is True
    [record] = board.await_end([task])
    assert (record.state, record.reason) == (State.FAILED, "timeout")
    wait_until(lambda: made.live() == "a body that does not end holds the event loop", 30, "the probe")
    bodies.let_all_go()
    wait_until(lambda: made.live() is True, 30, "its recovery")


def test_a_worker_whose_children_do_not_start_leaves_tasks_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has goes back unspent, and it claims again once a child has come up."""
    monkeypatch.setattr(process_slot, "_PATIENT_STARTS", 2)
    module = tmp_path / "needy_tasks.py"
    module.write_text(
        "import pathlib\nfrom callboard import on_child_start, task\n"
        f"@on_child_start\ndef connect():\n    assert pathlib.Path({str(tmp_path / 'database')!r}).exists()\n"
        "@task(queue='needy', name='needy')\ndef needy() -> None: ...\n",
        encoding="utf-8",
    )
    recorder = Recorder()
    group = ProcessSlots(2, recorder, modules=[str(module)])
    try:
        group.start()
        assert not group.blocked()
        given = assignment("needy", queue="needy")
        group.run(given)
        outcome = recorder.outcome(given)
        assert (outcome.kind, outcome.counts) == ("retry", False)
        assert group.blocked()
        (tmp_path / "database").touch()
        wait_until(lambda: not group.blocked() and group.ready(), 20, "a child")
        assert run(group, recorder, assignment("needy", queue="needy")).kind == "completed"
    finally:
        group.close(5)


def test_threads_that_are_all_stuck_fail_the_liveness_probe(
    runner: MakeRunner, board: Board, bodies: Bodies
) -> None:
    """Bodies that swallow every stop: two are given up, two more hold their slots, and nothing moves on."""
    made = runner(2, 0.1, q={"soft_limit": 0.2, "hard_limit": 0.2})
    made.start()
    tasks = board.submit("q.hold", 4, max_attempts=1)
    wait_until(lambda: len(bodies.started) == 4, 30, "four bodies")
    wait_until(lambda: "held by a body" in str(made.live()), 30, "the probe")
    bodies.let_all_go()
    board.await_end(tasks)
    wait_until(lambda: made.live() is True, 30, "its recovery")
