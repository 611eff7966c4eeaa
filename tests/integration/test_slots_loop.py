"""Loop slots, with a real event loop in its thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from callboard_worker.slots import body
from callboard_worker.slots.loop import LoopSlots
from callboard_worker.slots.slot import Assignment, Host, Outcome
from tests.support import bodies
from tests.support.recording import Recorder, assignment, run
from tests.support.waiting import wait_until

assert bodies.add.name == "slots.add"
MakeSlots = Callable[..., LoopSlots]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def make(recorder: Recorder) -> Iterator[MakeSlots]:
    groups: list[LoopSlots] = []

    def make(capacity: int = 10, **options: object) -> LoopSlots:
        group = LoopSlots(capacity, recorder, **{"grace_seconds": 20, **options})  # type: ignore[arg-type]
        groups.append(group)
        group.start()
        return group

    yield make
    for group in groups:
        group.close(5)


def test_a_thousand_sleepers_are_a_thousand_coroutines(make: MakeSlots, recorder: Recorder) -> None:
    """Given room for 1,000 bodies
    When 1,000 sleep for a second
    I expect them to sleep at the same time, in one thread.
    """
    group = make(1000)
    assert group.ready()
    threads = set(threading.enumerate())
    sleepers = [assignment("slots.sleep_async", {"seconds": 1}) for _ in range(1000)]
    started = time.monotonic()
    for given in sleepers:
        group.run(given)
    with pytest.raises(ValueError, match="1000 loop slots"):
        group.run(assignment("slots.add_async", {"left": 1}))
    assert set(threading.enumerate()) <= threads
    for given in sleepers:
        assert recorder.outcome(given).result == b'"slept"'
    assert time.monotonic() - started < 20
    assert len(set(recorder.slots.values())) == 1000


def test_the_log_and_the_current_task_are_each_bodys_own(make: MakeSlots, recorder: Recorder) -> None:
    group = make()
    given = [assignment("slots.sleep_async", {"seconds": 0.05}) for _ in range(5)]
    for one in given:
        group.run(one)
    for one in given:
        recorder.outcome(one)
        assert recorder.lines(one) == [("info", "tidied up")]
        assert len(recorder.progresses(one)) == 1


def test_the_soft_limit_cancels(make: MakeSlots, recorder: Recorder) -> None:
    given = assignment("slots.sleep_async", soft_limit_ms=600, hard_limit_ms=60_000)
    outcome = run(make(), recorder, given)
    assert outcome.kind == "timeout"
    assert outcome.error is not None
    assert outcome.error.type == "SoftLimitExceeded"
    assert "bodies.py" in (outcome.error.traceback or "")
    assert recorder.texts(given) == ["tidied up"]


@pytest.mark.parametrize(
    ("why", "kind"), [("cancel", "cancelled"), ("terminate", "cancelled"), ("lost", "lost")]
)
def test_a_stop_cancels(make: MakeSlots, recorder: Recorder, why, kind: str) -> None:
    group = make()
    given = assignment("slots.sleep_async")
    group.run(given)
    recorder.await_progress(given)
    group.stop(given.task_id, why, token="1.another-0")
    group.stop(given.task_id, why, token=given.token)
    assert recorder.outcome(given).kind == kind


def test_a_stop_that_comes_before_the_body_reports_its_end(make: MakeSlots, recorder: Recorder) -> None:
    group = make()
    for _ in range(200):
        given = assignment("slots.sleep_async", {"seconds": 30})
        group.run(given)
        group.stop(given.task_id, "cancel")
        assert recorder.outcome(given).kind == "cancelled"


def test_a_body_that_swallows_its_cancellation_is_given_up(
    make: MakeSlots, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    group = make(1, grace_seconds=0.2)
    deaf = assignment("slots.swallow_async", {"seconds": 4}, soft_limit_ms=400)
    outcome = run(group, recorder, deaf)
    assert outcome.kind == "timeout"
    assert group.stuck == 1
    assert "given up" in caplog.text
    assert run(group, recorder, assignment("slots.add_async", {"left": 1})).kind == "completed"
    wait_until(lambda: group.stuck == 0, 20, "the old body's end")
    assert len(recorder.outcomes[deaf.task_id]) == 1


def test_a_body_that_blocks_the_loop_is_reported_all_the_same(make: MakeSlots, recorder: Recorder) -> None:
    """The limits are kept by another thread: the slot is free, though the loop is not."""

    async def invoke(given: Assignment, host: Host) -> Outcome:
        host.progress(b"{}")
        released.wait(20)
        return await body.execute_async(given, host)

    released = threading.Event()
    group = make(1, invoke=invoke, grace_seconds=0.2)
    blocker = assignment("slots.add_async", {"left": 1}, hard_limit_ms=400)
    try:
        outcome = run(group, recorder, blocker)
        assert outcome.kind == "timeout"
        assert outcome.error is not None
        assert outcome.error.type == "HardLimitExceeded"
    finally:
        released.set()


def test_a_wrapper_of_the_body_that_raises_ends_the_attempt(make: MakeSlots, recorder: Recorder) -> None:
    async def invoke(given: Assignment, host: Host) -> Outcome:
        raise RuntimeError("broken hook")

    outcome = run(make(invoke=invoke), recorder, assignment("slots.add_async", {"left": 1}))
    assert outcome.kind == "failed"
    assert outcome.error is not None
    assert outcome.error.message == "broken hook"


def test_closing_waits_and_then_gives_up(recorder: Recorder) -> None:
    group = LoopSlots(2, recorder, grace_seconds=0.2)
    group.start()
    short, long = (assignment("slots.sleep_async", {"seconds": seconds}) for seconds in (0.3, 60))
    group.run(short)
    group.run(long)
    recorder.await_progress(short)
    recorder.await_progress(long)
    group.close(2.0)
    assert recorder.outcome(short).kind == "completed"
    assert recorder.outcome(long).kind == "lost"
    assert not group.ready()
    group.close(1.0)
    assert "slot-loop" not in {thread.name for thread in threading.enumerate()}
