"""Process slots: every way in which a body is stopped or takes its child down, alone."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from callboard_worker.slots import kernel
from callboard_worker.slots.process import ProcessSlots
from callboard_worker.slots.slot import Assignment, Why
from tests.support.processes import alive
from tests.support.recording import Recorder, assignment, run
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@contextmanager
def slots(recorder: Recorder, capacity: int, grace_seconds: float) -> Iterator[ProcessSlots]:
    group = ProcessSlots(capacity, recorder, modules=["tests.support.bodies"], grace_seconds=grace_seconds)
    group.start()
    yield group
    group.close(5)


@pytest.fixture(scope="module")
def group(recorder: Recorder) -> Iterator[ProcessSlots]:
    """Two slots that leave a body all the time it wants to tidy up."""
    with slots(recorder, 2, grace_seconds=20) as group:
        yield group


@pytest.fixture(scope="module")
def hasty(recorder: Recorder) -> Iterator[ProcessSlots]:
    """One slot that soon kills what does not heed it."""
    with slots(recorder, 1, grace_seconds=0.3) as group:
        yield group


def started(group: ProcessSlots, recorder: Recorder, given: Assignment) -> int:
    """Start it, wait until the body runs; its child's process id."""
    group.run(given)
    recorder.await_progress(given)
    return next(
        slot.child.pid
        for slot in group._slots
        if slot.child is not None and slot.stint is not None and slot.stint.assignment is given
    )


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("slots.spin", {}),
        ("slots.sleep", {}),
        ("slots.await_child", {}),
        ("slots.sleep_async", {}),
        ("slots.wrap", {}),
    ],
)
def test_the_soft_limit_is_an_exception_in_the_body(
    group: ProcessSlots, recorder: Recorder, name: str, payload: dict[str, Any]
) -> None:
    """Python code, a sleep, a wait for a program, a coroutine, a library that wraps what it meets."""
    given = assignment(name, payload, soft_limit_ms=800)
    outcome = run(group, recorder, given)
    assert outcome.kind == "timeout"
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.retryable) == ("SoftLimitExceeded", True)
    assert "0.8 s" in outcome.error.message
    trace = outcome.error.traceback or ""
    assert "bodies.py" in trace
    assert "slots/child.py" not in trace
    assert 750 <= outcome.run_ms < 20_000
    if name in ("slots.spin", "slots.sleep_async"):
        assert "tidied up" in recorder.texts(given)
    # What was struck may have left anything half done: the next task has a new child.
    assert run(group, recorder, assignment("slots.add", {"left": 1})).kind == "completed"


@pytest.mark.parametrize("name", ["slots.spin", "slots.sleep", "slots.sleep_async"])
def test_a_cancel_is_an_exception_in_the_body(group: ProcessSlots, recorder: Recorder, name: str) -> None:
    given = assignment(name)
    started(group, recorder, given)
    group.stop(given.task_id, "cancel", token="1.another-0")
    group.stop("slots_unknown", "cancel")
    group.stop(given.task_id, "cancel", token=given.token)
    outcome = recorder.outcome(given)
    assert outcome.kind == "cancelled"
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.retryable) == ("Cancelled", False)


@pytest.mark.parametrize("name", ["slots.swallow", "slots.hold_gil", "slots.swallow_async"])
@pytest.mark.parametrize("why", ["limit", "cancel"])
def test_who_does_not_heed_a_polite_stop_is_killed_after_the_grace(
    hasty: ProcessSlots, recorder: Recorder, name: str, why: Why
) -> None:
    given = assignment(name, soft_limit_ms=800 if why == "limit" else None)
    pid = started(hasty, recorder, given)
    if why == "cancel":
        hasty.stop(given.task_id, "cancel")
    outcome = recorder.outcome(given)
    assert outcome.kind == ("timeout" if why == "limit" else "cancelled")
    assert outcome.error is not None
    assert "did not stop when" in outcome.error.message
    # Where it was, said by the child itself before its end. (A coroutine that waits is on no stack.)
    assert ("bodies.py" if name != "slots.swallow_async" else "select") in (outcome.error.traceback or "")
    assert not alive(pid)


@pytest.mark.parametrize("name", ["slots.swallow", "slots.hold_gil"])
def test_the_hard_limit_kills(group: ProcessSlots, recorder: Recorder, name: str) -> None:
    given = assignment(name, soft_limit_ms=800, hard_limit_ms=1200)
    pid = started(group, recorder, given)
    outcome = recorder.outcome(given)
    assert outcome.kind == "timeout"
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.retryable) == ("HardLimitExceeded", True)
    assert "1.2 s" in outcome.error.message
    assert outcome.run_ms >= 1200
    assert not alive(pid)


@pytest.mark.parametrize(("why", "kind"), [("terminate", "cancelled"), ("lost", "lost")])
def test_terminate_and_lost_kill_at_once(
    group: ProcessSlots, recorder: Recorder, why: Why, kind: str
) -> None:
    given, sibling = assignment("slots.hold_gil"), assignment("slots.sleep", {"seconds": 1})
    pid = started(group, recorder, given)
    group.run(sibling)
    group.stop(given.task_id, why)
    assert recorder.outcome(given).kind == kind
    assert not alive(pid)
    assert recorder.outcome(sibling).kind == "completed"


def test_a_stop_before_a_child_is_up_ends_the_task_unstarted(group: ProcessSlots, recorder: Recorder) -> None:
    for why, kind in (("cancel", "cancelled"), ("lost", "lost"), ("terminate", "cancelled")):
        # The child of the one before is being replaced.
        victim = assignment("slots.die", {"how": "exit"})
        run(group, recorder, victim)
        given = assignment("slots.sleep", {"seconds": 0})
        group.run(given)
        group.stop(given.task_id, why)  # type: ignore[arg-type]
        assert recorder.outcome(given).kind in (kind, "completed")
    assert run(group, recorder, assignment("slots.add", {"left": 1})).kind == "completed"


def test_a_late_stop_never_hits_the_next_task(hasty: ProcessSlots, recorder: Recorder) -> None:
    """Given a child that runs short bodies back to back
    When each is cancelled at an arbitrary moment of its life
    I expect it completed or cancelled, and the uncancelled one after it unharmed.
    """
    kinds: set[str] = set()
    for number in range(150):
        cancelled = assignment("slots.add", {"left": number})
        hasty.run(cancelled)
        for _ in range(number * 20):
            pass
        hasty.stop(cancelled.task_id, "cancel")
        kinds.add(recorder.outcome(cancelled).kind)
        assert run(hasty, recorder, assignment("slots.add", {"left": 1})).kind == "completed"
    assert kinds <= {"completed", "cancelled"}
    # Signals that no task was asked to heed: the child's handler finds no number and lets them pass.
    [pid] = hasty.pids.values()
    for number in range(50):
        given = assignment("slots.add", {"left": number})
        hasty.run(given)
        os.kill(pid, signal.SIGUSR1)
        assert recorder.outcome(given).kind == "completed"
    assert list(hasty.pids.values()) == [pid]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("segfault", "was killed by SIGSEGV"),
        ("exit", "exited with code 3"),
        ("kill", "was killed by SIGKILL"),
        ("close", "closed or garbled"),
    ],
)
def test_a_child_that_dies_is_a_failed_attempt_with_its_cause(
    group: ProcessSlots, recorder: Recorder, how: str, message: str
) -> None:
    sibling = assignment("slots.sleep", {"seconds": 1.5})
    group.run(sibling)
    recorder.await_progress(sibling)
    given = assignment("slots.die", {"how": how})
    outcome = run(group, recorder, given)
    assert outcome.kind == "crashed"
    assert outcome.error is not None
    assert message in outcome.error.message
    assert outcome.error.retryable
    assert "last words" in recorder.texts(given)
    if how == "segfault":
        assert "Segmentation fault" in (outcome.error.traceback or "")
        assert re.search(r"bodies\.py.*in die", outcome.error.traceback or "")
        assert "slots/child.py" not in (outcome.error.traceback or "")
    # The slot has a new child, the other one never noticed.
    assert run(group, recorder, assignment("slots.add", {"left": 1})).kind == "completed"
    assert recorder.outcome(sibling).kind == "completed"


def test_a_kill_for_want_of_memory_by_the_kernel_is_told_as_such(
    group: ProcessSlots, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's counter is a stand-in; the SIGKILL that comes from outside is real."""
    monkeypatch.setattr(group, "_oom_kills", 5)
    counter = iter([5, 6])
    monkeypatch.setattr(kernel, "oom_kills", lambda: next(counter))
    outside = run(group, recorder, assignment("slots.die", {"how": "kill"}))
    assert (outside.kind, "memory runs out" in (outside.error.message if outside.error else "")) == (
        "crashed",
        True,
    )
    outcome = run(group, recorder, assignment("slots.die", {"how": "kill"}))
    assert outcome.kind == "memory"
    assert outcome.error is not None
    assert outcome.error.type == "OutOfMemory"


def test_a_body_that_replaced_our_handler_dies_of_the_stop_and_is_told_as_stopped(
    group: ProcessSlots, recorder: Recorder
) -> None:
    given = assignment("slots.die", {"how": "usr1"})
    started(group, recorder, given)
    group.stop(given.task_id, "cancel")
    assert recorder.outcome(given).kind == "cancelled"


def test_the_memory_limit_ends_a_body_that_grows(group: ProcessSlots, recorder: Recorder) -> None:
    sibling = assignment("slots.sleep", {"seconds": 1})
    group.run(sibling)
    given = assignment("slots.hoard", {"megabytes": 2000}, memory_limit_bytes=200 * 1024 * 1024)
    outcome = run(group, recorder, given)
    assert outcome.kind == "memory"
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.retryable) == ("MemoryLimitExceeded", True)
    assert "its limit is 200 MiB" in outcome.error.message
    assert recorder.outcome(sibling).kind == "completed"


def test_a_spike_fails_before_it_is_memory(group: ProcessSlots, recorder: Recorder) -> None:
    """RLIMIT_DATA: 600 MiB at once are refused where the limit is 200, without waiting for a look."""
    given = assignment(
        "slots.hoard", {"megabytes": 600, "at_once": True}, memory_limit_bytes=200 * 1024 * 1024
    )
    outcome = run(group, recorder, given)
    assert outcome.kind == "memory"
    assert outcome.error is not None
    assert outcome.error.type == "MemoryError"
    within = assignment(
        "slots.hoard", {"megabytes": 50, "at_once": True}, memory_limit_bytes=200 * 1024 * 1024
    )
    assert run(group, recorder, within).kind == "completed"
    # And the limit does not stay for tasks that have none.
    facts = run(group, recorder, assignment("slots.environment"))
    assert b'"data_limit":-1' in (facts.result or b"")


@pytest.mark.parametrize("how", ["program", "fork"])
@pytest.mark.parametrize("then", ["sleep", "exit"])
def test_what_a_body_started_dies_with_its_child(
    group: ProcessSlots, recorder: Recorder, how: str, then: str
) -> None:
    """Killed or crashed: nothing of the group survives, and an open pipe in it hides no death."""
    given = assignment("slots.leave_behind", {"how": how, "then": then})
    group.run(given)
    left = int(recorder.await_line(given, "left ").split()[1])
    if then == "sleep":
        assert alive(left)
        group.stop(given.task_id, "terminate")
    assert recorder.outcome(given).kind == ("cancelled" if then == "sleep" else "crashed")
    wait_until(lambda: not alive(left), description="the end of what was left behind")


def test_a_stop_in_the_midst_of_logging_garbles_nothing(group: ProcessSlots, recorder: Recorder) -> None:
    for number in range(10):
        given = assignment("slots.chatter", soft_limit_ms=60 + number)
        outcome = run(group, recorder, given)
        assert outcome.kind == "timeout", outcome
        assert all(re.fullmatch(r"x{100}|\d+ more log lines.*", text) for text in recorder.texts(given))
