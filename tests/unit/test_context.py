from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import pickle
import threading
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard import context
from callboard.logging import bound_fields


class Notes:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.blobs: list[bytes] = []
        self.lines: list[tuple[str, str]] = []

    def progress(self, blob: bytes) -> None:
        self.blobs.append(blob)

    def log(self, level: str, text: str) -> None:
        self.lines.append((level, text))


TASK = context.CurrentTask(id="reports_1", name="build", queue="reports", attempt=2, max_attempts=4)


def test_outside_a_task_there_is_no_current_one() -> None:
    assert context.current_or_none() is None
    with pytest.raises(context.OutsideTask, match="inside a task's body"):
        context.current()


def test_inside_a_task_current_is_it_and_afterwards_it_is_gone() -> None:
    with context.enter(TASK, Notes()):
        assert context.current() is TASK
        assert bound_fields() == {"task_id": "reports_1", "attempt": 2}
        assert not TASK.last_attempt
    assert context.current_or_none() is None
    assert bound_fields() == {}


def test_tasks_within_tasks_return_to_the_outer_one() -> None:
    inner = context.CurrentTask(id="reports_2", name="build", queue="reports")
    with context.enter(TASK, Notes()):
        with contextlib.suppress(KeyError), context.enter(inner, Notes()):
            assert context.current() is inner
            raise KeyError
        assert context.current() is TASK


def test_coroutines_on_one_loop_do_not_see_each_other() -> None:
    async def body(number: int) -> str:
        task = context.CurrentTask(id=f"q_{number}", name="n", queue="q")
        with context.enter(task, Notes()):
            await asyncio.sleep(0)
            return context.current().id

    async def all_at_once() -> list[str]:
        return await asyncio.gather(*(body(number) for number in range(20)))

    assert asyncio.run(all_at_once()) == [f"q_{number}" for number in range(20)]


def test_threads_do_not_see_each_other() -> None:
    seen: list[object] = []
    with context.enter(TASK, Notes()):
        thread = threading.Thread(target=lambda: seen.append(context.current_or_none()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_progress_reaches_the_sink_as_json() -> None:
    notes = Notes()
    with context.enter(TASK, notes):
        context.progress(3, 10, "reading rows")
        context.progress(0.5)
    assert [json.loads(blob) for blob in notes.blobs] == [
        {"current": 3, "total": 10, "message": "reading rows"},
        {"current": 0.5, "total": None, "message": ""},
    ]


def test_progress_outside_a_task_does_nothing_but_check() -> None:
    context.progress(1, 2)
    with pytest.raises(ValueError, match="finite"):
        context.progress(float("nan"))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**400, -(10**301)])
def test_progress_refuses_numbers_that_json_cannot_carry(number: float) -> None:
    with pytest.raises((ValueError, OverflowError)):
        context.progress_blob(number)
    with pytest.raises((ValueError, OverflowError)):
        context.progress_blob(1, number)


@given(st.text(max_size=3000), st.integers(-(10**18), 10**18))
def test_a_progress_report_always_fits_its_place(message: str, current: int) -> None:
    blob = context.progress_blob(current, None, message)
    assert len(blob) <= context.PROGRESS_BYTES
    document = json.loads(blob)
    assert document["current"] == current
    assert document["message"] == message or document["message"].endswith("…")


def test_a_long_message_keeps_most_of_its_place() -> None:
    blob = context.progress_blob(1, 2, "x" * 1_000_000)
    assert context.PROGRESS_BYTES - 20 <= len(blob) <= context.PROGRESS_BYTES


def test_log_records_reach_the_task_that_made_them() -> None:
    notes = Notes()
    handler = context.TaskLogHandler()
    logger = logging.getLogger("somebody.elses")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        logger.warning("outside")
        with context.enter(TASK, notes):
            logger.warning("half %s", "way")
            logger.log(35, "between levels")
            logger.debug("detail")
    finally:
        logger.removeHandler(handler)
    assert notes.lines == [("warning", "half way"), ("warning", "between levels"), ("debug", "detail")]


def test_a_failing_sink_never_ends_the_body(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(Notes):
        def log(self, level: str, text: str) -> None:
            raise OSError("pipe is gone")

    handler = context.TaskLogHandler()
    logger = logging.getLogger("callboard.test.broken")
    logger.addHandler(handler)
    try:
        with context.enter(TASK, Broken()):
            logger.error("it goes on")
    finally:
        logger.removeHandler(handler)
    assert "pipe is gone" in capsys.readouterr().err


def test_retry_says_when_and_whether_it_counts() -> None:
    assert context.Retry().after_ms is None
    assert context.Retry(2.5).after_ms == 2500
    snooze = context.Retry(after=timedelta(minutes=1), counts=False, message="429")
    assert (snooze.after_ms, snooze.counts, str(snooze)) == (60_000, False, "429")
    twin = pickle.loads(pickle.dumps(snooze))
    assert (twin.after_ms, twin.counts, twin.message) == (60_000, False, "429")


@pytest.mark.parametrize(
    "after", [-1, float("nan"), float("inf"), timedelta(days=4000), timedelta(seconds=-1)]
)
def test_a_delay_is_between_zero_and_ten_years(after: float | timedelta) -> None:
    with pytest.raises(ValueError):
        context.Retry(after)


def test_discard_and_the_limits_survive_pickling() -> None:
    assert pickle.loads(pickle.dumps(context.Discard("bad address"))).reason == "bad address"
    for kind in (context.SoftLimitExceeded, context.Cancelled):
        assert isinstance(pickle.loads(pickle.dumps(kind("over"))), Exception)


def test_the_last_attempt_is_known() -> None:
    assert context.CurrentTask("q_1", "n", "q", attempt=4, max_attempts=4).last_attempt
    assert not context.CurrentTask("q_1", "n", "q", attempt=400, max_attempts=None).last_attempt


def test_hooks_are_kept_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "child_start_hooks", [])
    monkeypatch.setattr(context, "child_stop_hooks", [])

    def open_pool() -> None: ...
    def close_pool() -> None: ...

    assert context.on_child_start(open_pool) is open_pool
    context.on_child_start(open_pool)
    context.on_child_stop(close_pool)
    assert context.child_start_hooks == [open_pool]
    assert context.child_stop_hooks == [close_pool]
