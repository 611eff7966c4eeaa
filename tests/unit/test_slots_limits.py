"""The clock of an attempt, and the thread that looks after all clocks."""

from __future__ import annotations

import threading
from math import inf
from typing import Any

import pytest

from callboard import clock
from callboard_worker.slots.limits import Limits, Stint
from callboard_worker.slots.slot import Outcome, TaskError
from tests.support.recording import Recorder, assignment
from tests.support.waiting import wait_until


def stint(recorder: Recorder | None = None, **options: Any) -> Stint:
    return Stint(assignment("any", **options), recorder or Recorder())


@pytest.mark.parametrize(
    ("soft", "hard", "killable", "polite_at", "kill_at"),
    [
        (None, None, True, inf, inf),
        (1000, None, True, 1.0, 6.0),
        (1000, 3000, True, 1.0, 3.0),
        (None, 3000, True, inf, 3.0),
        # What cannot be killed is asked at its only limit, and given up later.
        (None, 3000, False, 3.0, 8.0),
        (1000, 3000, False, 1.0, 8.0),
        (1000, None, False, 1.0, 6.0),
    ],
)
def test_deadlines(
    soft: int | None, hard: int | None, killable: bool, polite_at: float, kill_at: float
) -> None:
    attempt = stint(soft_limit_ms=soft, hard_limit_ms=hard)
    first = attempt.begin(5.0, killable=killable)
    assert attempt.polite_at - attempt.started == pytest.approx(polite_at)
    assert attempt.kill_at - attempt.started == pytest.approx(kill_at)
    assert first == min(attempt.polite_at, attempt.kill_at)


def test_a_stronger_stop_replaces_a_weaker_one_and_never_the_other_way() -> None:
    attempt = stint()
    assert attempt.ask("limit")
    assert not attempt.ask("limit")
    assert attempt.ask("cancel")
    assert not attempt.ask("limit")
    assert attempt.ask("lost")
    assert not attempt.ask("terminate")
    assert attempt.stopping == "lost"


def test_exactly_one_thread_may_report_the_end() -> None:
    attempt = stint()
    barrier = threading.Barrier(8)
    won: list[bool] = []

    def claim() -> None:
        barrier.wait()
        won.append(attempt.claim_end())

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


def test_nothing_is_told_after_the_end_and_dropped_lines_are_named_before() -> None:
    recorder = Recorder()
    attempt = stint(recorder)
    for number in range(1002):
        attempt.log("info", f"{number}")
    attempt.hush()
    attempt.log("info", "late")
    attempt.progress(b"{}")
    lines = recorder.texts(attempt.assignment)
    assert lines[:2] == ["0", "1"]
    assert len(lines) == 1001
    assert lines[-1].startswith("2 more log lines were dropped")
    assert recorder.progresses(attempt.assignment) == []


def test_a_listener_that_logs_or_fails_does_not_come_back_for_ever() -> None:
    class Chatterbox(Recorder):
        def logged(self, assignment, level: str, text: str) -> None:
            super().logged(assignment, level, text)
            attempt.log("info", f"heard {text}")
            raise RuntimeError("no room")

    recorder = Chatterbox()
    attempt = stint(recorder)
    attempt.log("info", "one")
    attempt.log("info", "two")
    assert recorder.texts(attempt.assignment) == ["one", "two"]


@pytest.mark.parametrize(
    ("why", "kind", "error_type", "retryable"),
    [
        ("limit", "timeout", "SoftLimitExceeded", True),
        ("cancel", "cancelled", "Cancelled", False),
        ("terminate", "cancelled", "Terminated", False),
    ],
)
def test_a_stop_is_told_with_its_limit_and_the_bodys_traceback(why, kind, error_type, retryable) -> None:
    attempt = stint(soft_limit_ms=2500)
    attempt.ask(why)
    told = attempt.told(Outcome(kind, error=TaskError("KeyError", "", "where it was")))
    assert told.error is not None
    assert (told.error.type, told.error.retryable) == (error_type, retryable)
    assert told.error.traceback == "where it was"
    assert ("2.5 s" in told.error.message) == (why == "limit")


def test_an_outcome_of_the_body_itself_is_told_as_it_is() -> None:
    attempt = stint()
    attempt.ask("cancel")
    done = Outcome("completed", result=b"1")
    assert attempt.told(done) is done


def test_the_limits_sleep_until_the_nearest_deadline() -> None:
    looks: list[float] = []
    deadlines = [inf]

    def look(now: float) -> float:
        looks.append(now)
        if now >= deadlines[0]:
            deadlines[0] = inf
        return deadlines[0]

    limits = Limits()
    limits.watch(look)
    try:
        wait_until(lambda: looks, description="a first look")
        deadlines[0] = clock.monotonic() + 0.1
        limits.due(deadlines[0])
        wait_until(lambda: deadlines[0] == inf, description="the deadline")
        # Once to see the deadline, once (perhaps twice, for the clock's grain) when it was due.
        assert len(looks) <= 5
        seen = len(looks)
        limits.due(clock.monotonic() + 3600)
        wait_until(lambda: len(looks) > seen, description="a look at the new nearest")
        limits.due(clock.monotonic() + 7200)
        assert len(looks) == seen + 1
    finally:
        limits.close()


def test_a_source_that_fails_keeps_no_other_from_its_look(caplog: pytest.LogCaptureFixture) -> None:
    seen = threading.Event()

    def broken(now: float) -> float:
        raise RuntimeError("broken source")

    def sound(now: float) -> float:
        seen.set()
        return inf

    limits = Limits()
    limits.watch(broken)
    limits.watch(sound)
    limits.due(0)
    try:
        assert seen.wait(10)
    finally:
        limits.close()
    assert "broken source" in caplog.text
