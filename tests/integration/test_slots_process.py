"""Process slots, with real children: bodies, their output, their coming and going."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard_worker.slots.limits import Stint
from callboard_worker.slots.process import ProcessSlots
from callboard_worker.slots.slot import Assignment, Outcome
from tests.support.processes import BODIES, MakeSlots, alive, result, slot_maker
from tests.support.recording import Recorder, assignment, run
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def shared(recorder: Recorder) -> Iterator[ProcessSlots]:
    """Two slots for tests that need nothing of their own."""
    with slot_maker(recorder) as make:
        yield make(2, grace_seconds=20)


@pytest.fixture
def make(recorder: Recorder) -> Iterator[MakeSlots]:
    with slot_maker(recorder) as make:
        yield make


def test_a_warm_child_runs_task_after_task(make: MakeSlots, recorder: Recorder) -> None:
    group = make()
    wait_until(group.ready, description="a slot that is up")
    first = result(run(group, recorder, assignment("slots.who")))
    again = assignment("slots.who", attempt=4)
    second = result(run(group, recorder, again))
    assert first["pid"] == second["pid"] == group.pids["process-0"]
    assert first["pid"] != os.getpid()
    assert (second["id"], second["last"], second["owner"]) == (again.task_id, True, "team-a")
    # Its hooks ran once, before its first task.
    assert second["started"] == ["started"]


def test_children_are_made_when_they_are_first_used(make: MakeSlots, recorder: Recorder) -> None:
    group = make(3)
    wait_until(group.ready, description="a slot that is up")
    assert list(group.pids) == ["process-0"]
    both = [assignment("slots.sleep", {"seconds": 1}) for _ in range(2)]
    for given in both:
        group.run(given)
    for given in both:
        assert recorder.outcome(given).kind == "completed"
    assert sorted(group.pids) == ["process-0", "process-1"]
    # One at a time keeps to a child that is warm.
    for _ in range(5):
        run(group, recorder, assignment("slots.who"))
    assert sorted(group.pids) == ["process-0", "process-1"]


def test_never_more_than_there_are_slots(make: MakeSlots, recorder: Recorder) -> None:
    group = make(1)
    given = assignment("slots.sleep")
    group.run(given)
    with pytest.raises(ValueError, match="1 process slots"):
        group.run(assignment("slots.who"))
    recorder.await_progress(given)
    group.stop(given.task_id, "terminate")
    recorder.outcome(given)
    run(group, recorder, assignment("slots.who"))


def test_a_slot_may_be_filled_from_its_own_report(make: MakeSlots) -> None:
    left = [assignment("slots.add", {"left": number}) for number in range(30)]
    wanted = list(left)

    class Chain(Recorder):
        def finished(self, slot: str, assignment: Assignment, outcome: Outcome) -> None:
            super().finished(slot, assignment, outcome)
            if left:
                group.run(left.pop())

    chain = Chain()
    # A child for every other task: the chain goes on over their changes.
    group = ProcessSlots(1, chain, modules=[BODIES], tasks_per_child=2)
    group.start()
    try:
        group.run(left.pop())
        for given in wanted:
            assert chain.outcome(given).kind == "completed"
    finally:
        group.close(5)


def test_async_bodies_share_the_childs_loop(shared: ProcessSlots, recorder: Recorder) -> None:
    for number in range(3):
        assert result(run(shared, recorder, assignment("slots.add_async", {"left": number}))) == number + 1


@pytest.mark.parametrize(
    ("how", "kind", "error_type", "retryable"),
    [
        ("anyhow", "failed", "ValueError", True),
        ("permanent", "failed", "Unreachable", False),
        ("discard", "failed", "Discard", False),
        ("exit", "failed", "SystemExit", True),
        ("retry", "retry", "Retry", True),
    ],
)
def test_a_bodys_error_is_text_by_then(
    shared: ProcessSlots, recorder: Recorder, how: str, kind: str, error_type: str, retryable: bool
) -> None:
    outcome = run(shared, recorder, assignment("slots.fail", {"how": how}))
    assert outcome.kind == kind
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.retryable) == (error_type, retryable)
    frames = [line for line in (outcome.error.traceback or "").splitlines() if line.startswith("  File")]
    assert len(frames) == 1
    assert "bodies.py" in frames[0]


def test_a_result_over_the_limit_is_a_failure_for_good(shared: ProcessSlots, recorder: Recorder) -> None:
    too_large = run(shared, recorder, assignment("slots.give", {"what": "large"}))
    assert too_large.error is not None
    assert not too_large.error.retryable
    assert "1,048,576" in too_large.error.message
    largest = run(shared, recorder, assignment("slots.give", {"what": "largest"}))
    assert len(largest.result or b"") == 1024 * 1024


def test_a_payload_larger_than_the_sockets_buffer_arrives(shared: ProcessSlots, recorder: Recorder) -> None:
    for length in (300_000, 1_048_000, 4_000_000):
        given = assignment("slots.measure", {"text": "x" * length})
        assert result(run(shared, recorder, given)) == length


def test_a_child_that_does_not_take_its_task_is_killed(
    make: MakeSlots, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callboard_worker.slots.handle.SEND_SECONDS", 0.2)
    group = make(1)
    wait_until(group.ready, description="a slot that is up")
    os.kill(group.pids["process-0"], signal.SIGSTOP)
    given = assignment("slots.measure", {"text": "x" * 2_000_000})
    outcome = run(group, recorder, given)
    assert outcome.kind == "crashed"
    assert outcome.error is not None
    assert "did not take its task" in outcome.error.message
    assert result(run(group, recorder, assignment("slots.measure", {"text": "abc"}))) == 3


def test_records_prints_and_progress_come_in_their_order(make: MakeSlots, recorder: Recorder) -> None:
    level = logging.getLogger().level
    logging.getLogger().setLevel("INFO")
    try:
        group = make(1)
    finally:
        logging.getLogger().setLevel(level)
    given = assignment("slots.talk")
    run(group, recorder, given)
    assert recorder.lines(given) == [
        ("warning", "a record 1"),
        ("info", "a print"),
        ("warning", "on stderr"),
        ("info", "by the task's logger"),
        ("info", "no line end"),
    ]
    assert recorder.progresses(given) == [{"current": 1, "total": 2, "message": "half"}]
    assert recorder.told[-1] == ("finished", given.task_id, "completed")


def test_output_past_python_is_in_the_log_before_the_end(shared: ProcessSlots, recorder: Recorder) -> None:
    given = assignment("slots.mutter")
    run(shared, recorder, given)
    lines = recorder.lines(given)
    assert {("info", "by os.write"), ("info", "by echo"), ("info", "by C")} <= set(lines)
    [cut] = [text for level, text in lines if level == "warning"]
    assert len(cut.encode()) == 8 * 1024
    assert cut.endswith("…")
    assert recorder.told[-1][0] == "finished"


def test_forty_megabytes_of_output_are_cut_counted_and_harm_nobody(
    shared: ProcessSlots, recorder: Recorder
) -> None:
    given = assignment("slots.shout_raw", {"megabytes": 40})
    shared.run(given)
    # Meanwhile another child is served.
    assert result(run(shared, recorder, assignment("slots.add", {"left": 1}))) == 2
    assert recorder.outcome(given, 120).kind == "completed"
    texts = recorder.texts(given)
    assert len(texts) <= 1001
    assert f"{40 * 1024 - (len(texts) - 1)} more log lines were dropped" in texts[-1]
    many = assignment("slots.shout", {"lines": 3000})
    run(shared, recorder, many)
    assert len(recorder.texts(many)) == 1001
    assert recorder.texts(many)[-1].startswith("2000 more log lines were dropped")


def test_a_child_is_replaced_after_its_tasks_not_all_at_once(
    make: MakeSlots, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BODIES_HOOK_FOLDER", str(tmp_path))
    group = make(1, tasks_per_child=20)
    pids = [result(run(group, recorder, assignment("slots.who")))["pid"] for _ in range(100)]
    lives = [pids.count(pid) for pid in dict.fromkeys(pids)]
    assert len(lives) >= 4
    assert all(18 <= life <= 22 for life in lives[:-1])
    # Each that was replaced has run its hooks and is gone.
    former = list(dict.fromkeys(pids))[:-1]
    wait_until(lambda: all((tmp_path / f"stop-{pid}").exists() for pid in former), description="the hooks")
    wait_until(lambda: not any(alive(pid) for pid in former), description="their end")
    spread = {group.tasks_of_a_child() for _ in range(200)}
    assert min(spread) >= 18
    assert max(spread) <= 22
    assert len(spread) > 1


def test_many_short_lived_children_leave_no_descriptor_and_no_zombie(
    make: MakeSlots, recorder: Recorder
) -> None:
    group = make(1, tasks_per_child=1)
    for _ in range(3):
        run(group, recorder, assignment("slots.who"))

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def zombies() -> list[str]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return [pid for pid in children if not alive(int(pid))]

    before = descriptors()
    for _ in range(40):
        run(group, recorder, assignment("slots.who"))
    wait_until(lambda: descriptors() <= before + 8, description="closed descriptors")
    wait_until(lambda: not zombies(), description="no zombies")


def test_closing_runs_hooks_waits_for_bodies_and_kills_the_rest(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BODIES_HOOK_FOLDER", str(tmp_path))
    before = set(threading.enumerate())
    group = ProcessSlots(3, recorder, modules=[BODIES])
    group.start()
    wait_until(group.ready, description="a slot that is up")
    run(group, recorder, assignment("slots.who"))
    short, long = assignment("slots.sleep", {"seconds": 0.4}), assignment("slots.hold_gil")
    group.run(short)
    group.run(long)
    recorder.await_progress(short)
    recorder.await_progress(long)
    pids = dict(group.pids)
    group.close(2.0)
    assert recorder.outcome(short).kind == "completed"
    assert recorder.outcome(long).kind == "lost"
    assert not any(alive(pid) for pid in pids.values())
    assert len(list(tmp_path.glob("stop-*"))) == 1
    assert not group.ready()
    with pytest.raises(ValueError, match="closed"):
        group.run(assignment("slots.who"))
    group.close(1.0)
    wait_until(lambda: set(threading.enumerate()) <= before, description="the end of its threads")


def test_closing_before_a_child_is_up_hands_its_task_back(recorder: Recorder) -> None:
    group = ProcessSlots(4, recorder, modules=[BODIES])
    group.start()
    waiting = [assignment("slots.sleep") for _ in range(4)]
    for given in waiting:
        group.run(given)
    group.close(0)
    assert {recorder.outcome(given).kind for given in waiting} == {"lost"}


def test_a_task_for_a_child_that_has_just_died_goes_to_the_next(
    make: MakeSlots, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an idle child that dies unnoticed
    When a task is sent to it
    I expect no attempt lost: the body runs, in the child's successor.
    """
    group = make(1)
    for _ in range(15):
        pid = result(run(group, recorder, assignment("slots.who")))["pid"]
        [slot] = group._slots
        with slot.lock:
            # The slot's thread cannot take note of the death as long as we hold its lock.
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: not alive(pid), description="its end")  # type: ignore[misc]
            stint = Stint(assignment("slots.who"), recorder)
            with group._lock:
                assert group._choose() is slot
            slot.stint = stint
            slot._send(stint)
        outcome = recorder.outcome(stint.assignment)
        assert result(outcome)["pid"] != pid
