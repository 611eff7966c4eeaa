"""Thread slots, with real threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from callboard_worker.slots import body
from callboard_worker.slots.slot import Assignment, Host, Outcome
from callboard_worker.slots.thread import ThreadSlots
from tests.support import bodies
from tests.support.recording import Recorder, assignment, run
from tests.support.waiting import wait_until

assert bodies.add.name == "slots.add"
MakeSlots = Callable[..., ThreadSlots]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def make(recorder: Recorder) -> Iterator[MakeSlots]:
    groups: list[ThreadSlots] = []

    def make(capacity: int = 2, **options: object) -> ThreadSlots:
        group = ThreadSlots(capacity, recorder, **{"grace_seconds": 20, **options})  # type: ignore[arg-type]
        groups.append(group)
        group.start()
        return group

    yield make
    for group in groups:
        group.close(5)


def test_bodies_run_and_their_slots_are_free_again(make: MakeSlots, recorder: Recorder) -> None:
    group = make()
    assert group.ready()
    for number in range(10):
        outcome = run(group, recorder, assignment("slots.add", {"left": number}))
        assert (outcome.kind, outcome.result) == ("completed", b"%d" % (number + 1))


def test_a_finished_slot_may_be_filled_from_its_own_report(recorder: Recorder) -> None:
    left = [assignment("slots.add", {"left": 1}) for _ in range(50)]
    wanted = list(left)

    class Chain(Recorder):
        def finished(self, slot: str, assignment: Assignment, outcome: Outcome) -> None:
            super().finished(slot, assignment, outcome)
            if left:
                group.run(left.pop())

    chain = Chain()
    group = ThreadSlots(1, chain)
    group.start()
    try:
        group.run(left.pop())
        for given in wanted:
            assert chain.outcome(given).kind == "completed"
    finally:
        group.close(5)


def test_never_more_than_there_are_slots(make: MakeSlots, recorder: Recorder) -> None:
    group = make(2)
    running = [assignment("slots.spin") for _ in range(2)]
    for given in running:
        group.run(given)
    with pytest.raises(ValueError, match="2 thread slots"):
        group.run(assignment("slots.add", {"left": 1}))
    for given in running:
        recorder.await_progress(given)
        group.stop(given.task_id, "cancel")
        assert recorder.outcome(given).kind == "cancelled"


def test_the_log_has_records_and_prints_of_that_body_alone(make: MakeSlots, recorder: Recorder) -> None:
    group = make(2)
    given = assignment("slots.talk")
    logging.getLogger("bodies").warning("of nobody")
    level = logging.getLogger().level
    logging.getLogger().setLevel("INFO")
    try:
        run(group, recorder, given)
    finally:
        logging.getLogger().setLevel(level)
    assert recorder.lines(given) == [
        ("warning", "a record 1"),
        ("info", "a print"),
        ("warning", "on stderr"),
        ("info", "by the task's logger"),
        ("info", "no line end"),
    ]
    assert recorder.progresses(given) == [{"current": 1, "total": 2, "message": "half"}]
    assert recorder.told[-1] == ("finished", given.task_id, "completed")


def test_a_flood_of_lines_is_cut_and_counted(make: MakeSlots, recorder: Recorder) -> None:
    given = assignment("slots.shout", {"lines": 1500})
    run(make(), recorder, given)
    texts = recorder.texts(given)
    assert len(texts) == 1001
    assert texts[-1].startswith("500 more log lines were dropped")


@pytest.mark.parametrize("name", ["slots.spin", "slots.sleep_async"])
def test_the_soft_limit_ends_a_body_and_lets_it_tidy_up(
    make: MakeSlots, recorder: Recorder, name: str
) -> None:
    given = assignment(name, soft_limit_ms=600)
    outcome = run(make(), recorder, given)
    assert outcome.kind == "timeout"
    assert outcome.error is not None
    assert outcome.error.type == "SoftLimitExceeded"
    assert "0.6 s" in outcome.error.message
    assert outcome.error.retryable
    assert "bodies.py" in (outcome.error.traceback or "")
    assert "tidied up" in recorder.texts(given)


def test_a_hard_limit_alone_asks_first(make: MakeSlots, recorder: Recorder) -> None:
    outcome = run(make(), recorder, assignment("slots.spin", hard_limit_ms=100))
    assert outcome.kind == "timeout"


@pytest.mark.parametrize("name", ["slots.spin", "slots.sleep_async"])
@pytest.mark.parametrize(
    ("why", "kind"), [("cancel", "cancelled"), ("terminate", "cancelled"), ("lost", "lost")]
)
def test_a_stop_ends_a_body(make: MakeSlots, recorder: Recorder, name: str, why, kind: str) -> None:
    group = make()
    given = assignment(name)
    group.run(given)
    recorder.await_progress(given)
    group.stop(given.task_id, why)
    assert recorder.outcome(given).kind == kind


def test_a_stop_for_another_attempt_passes(make: MakeSlots, recorder: Recorder) -> None:
    """A lost attempt and its rescued twin may run here side by side."""
    group = make(2)
    lost = assignment("slots.spin", task_id="slots_twin", token="1.lost-0")
    twin = assignment("slots.spin", task_id="slots_twin", token="2.twin-0", attempt=2)
    group.run(lost)
    group.run(twin)
    group.stop("slots_twin", "lost", token=lost.token)
    wait_until(lambda: "slots_twin" in recorder.outcomes, description="the lost one's end")
    assert [outcome.kind for outcome in recorder.outcomes["slots_twin"]] == ["lost"]
    group.stop("slots_twin", "cancel", token=twin.token)
    wait_until(lambda: len(recorder.outcomes["slots_twin"]) == 2, description="the twin's end")
    assert recorder.outcomes["slots_twin"][1].kind == "cancelled"


def test_a_late_stop_never_hits_the_next_task(make: MakeSlots, recorder: Recorder) -> None:
    """Given one thread that runs short bodies back to back
    When each is cancelled at an arbitrary moment of its life or after it
    I expect each to end by itself or cancelled, never failed, and the uncancelled between them unharmed.
    """
    group = make(1)
    kinds: dict[str, int] = {}
    for number in range(400):
        cancelled = assignment("slots.add", {"left": number})
        group.run(cancelled)
        group.stop(cancelled.task_id, "cancel")
        kind = recorder.outcome(cancelled).kind
        kinds[kind] = kinds.get(kind, 0) + 1
        assert run(group, recorder, assignment("slots.add", {"left": 1})).kind == "completed"
    assert set(kinds) <= {"completed", "cancelled"}


def test_a_body_that_swallows_its_soft_limit_is_told_as_such(make: MakeSlots, recorder: Recorder) -> None:
    given = assignment("slots.swallow", {"seconds": 30}, soft_limit_ms=400)
    group = make(1, grace_seconds=0.2)
    outcome = run(group, recorder, given)
    assert outcome.kind == "timeout"
    assert outcome.error is not None
    assert "did not stop when asked" in outcome.error.message


def test_a_body_that_does_not_stop_is_given_up_and_its_slot_replaced(
    make: MakeSlots, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    group = make(1, grace_seconds=0.2)
    deaf = assignment("slots.swallow", {"seconds": 4}, hard_limit_ms=400)
    outcome = run(group, recorder, deaf)
    assert outcome.kind == "timeout"
    assert outcome.error is not None
    assert outcome.error.type == "HardLimitExceeded"
    assert group.stuck == 1
    assert "its thread is given up" in caplog.text
    # The heir works while the old thread still runs, and hears nothing of what it does.
    assert run(group, recorder, assignment("slots.add", {"left": 1})).kind == "completed"
    wait_until(lambda: group.stuck == 0, 20, "the old body's end")
    assert len(recorder.outcomes[deaf.task_id]) == 1
    assert recorder.told[-1][2] == "completed"


def test_with_too_many_stuck_threads_a_slot_waits_for_its_body(
    make: MakeSlots, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    group = make(1, grace_seconds=0.2)
    first = assignment("slots.swallow", {"seconds": 5}, hard_limit_ms=400)
    second = assignment("slots.swallow", {"seconds": 2.5}, hard_limit_ms=400)
    assert run(group, recorder, first).kind == "timeout"
    outcome = run(group, recorder, second)
    assert "its slot waits for it" in caplog.text
    # It ended by itself, after its limit: what it returned stands.
    assert (outcome.kind, outcome.result) == ("completed", b'"done"')


def test_hooks_around_the_body_run_in_its_thread_and_no_stop_hits_them(recorder: Recorder) -> None:
    threads: list[str] = []

    def invoke(given: Assignment, host: Host) -> Outcome:
        threads.append(threading.current_thread().name)
        outcome = body.execute(given, host)
        # A stop that comes now comes late.
        group.stop(given.task_id, "cancel")
        threads.append(threading.current_thread().name)
        return outcome

    group = ThreadSlots(1, recorder, invoke=invoke)
    group.start()
    try:
        outcome = run(group, recorder, assignment("slots.add", {"left": 1}))
        assert (outcome.kind, outcome.value) == ("completed", 2)
        assert threads == ["slot-thread-0"] * 2
    finally:
        group.close(5)


def test_a_hook_that_raises_ends_the_attempt_and_not_the_slot(recorder: Recorder) -> None:
    def invoke(given: Assignment, host: Host) -> Outcome:
        raise RuntimeError("broken hook")

    group = ThreadSlots(1, recorder, invoke=invoke)
    group.start()
    try:
        for _ in range(2):
            outcome = run(group, recorder, assignment("slots.add", {"left": 1}))
            assert outcome.kind == "failed"
            assert outcome.error is not None
            assert outcome.error.message == "broken hook"
    finally:
        group.close(5)


def test_closing_waits_for_bodies_and_gives_up_the_rest(recorder: Recorder) -> None:
    group = ThreadSlots(2, recorder, grace_seconds=0.2)
    group.start()
    short, long = assignment("slots.sleep", {"seconds": 0.3}), assignment("slots.spin", {"tidy": False})
    group.run(short)
    group.run(long)
    recorder.await_progress(short)
    recorder.await_progress(long)
    group.close(2.0)
    assert recorder.outcome(short).kind == "completed"
    assert recorder.outcome(long).kind == "lost"
    assert not group.ready()
    with pytest.raises(ValueError, match="closed"):
        group.run(assignment("slots.add", {"left": 1}))
    group.close(1.0)


def test_the_hooks_of_a_process_run_once_for_all_its_slots(
    make: MakeSlots, recorder: Recorder, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BODIES_HOOK_FOLDER", str(tmp_path))
    before = len(bodies.STARTED)
    groups = [make(1), make(1)]
    assert len(bodies.STARTED) == before + 1
    groups[0].close(1)
    assert not list(tmp_path.glob("stop-*"))
    groups[1].close(1)
    assert list(tmp_path.glob("stop-*"))
