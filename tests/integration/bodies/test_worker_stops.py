"""Stopped bodies of each form in a real worker: cancelled, terminated, and what their records say then."""

from __future__ import annotations

import time

import pytest

from callboard import control
from callboard.records.state import State
from tests.support.board import Board
from tests.support.outcomes import BLOCKING, FORMS, lines, outcomes, started
from tests.support.waiting import wait_until


@pytest.mark.parametrize("form", FORMS)
def test_a_cancel_reaches_a_running_body_at_once(board: Board, form: str) -> None:
    """By the control channel, not by a renewal five seconds later; and the body tidies up."""
    [task] = board.submit(f"{form}.nap", payload={"seconds": 60})
    started(board, task)
    assert not board.cancel(task)
    begun = time.monotonic()
    [record] = board.await_end([task], 20)
    assert time.monotonic() - begun < 4
    assert (record.state, record.reason) == (State.CANCELLED, "cancelled")
    assert record.cancel_requested_at is not None
    assert outcomes(record) == ["cancelled"]
    assert any("tidied" in line for line in lines(board, task))


@pytest.mark.parametrize("form", BLOCKING)
def test_a_body_that_heeds_no_cancel_is_ended_after_the_grace(board: Board, form: str) -> None:
    [task] = board.submit(f"{form}.deaf", payload={"seconds": 5})
    started(board, task)
    board.cancel(task)
    [record] = board.await_end([task], 20)
    assert (record.state, record.reason) == (State.CANCELLED, "cancelled")
    assert record.result is None


def test_terminate_ends_a_body_at_once(board: Board) -> None:
    [task] = board.submit("box.deaf")
    started(board, task)
    board.cancel(task)
    assert not board.cancel(task, terminate=True)
    [record] = board.await_end([task], 20)
    assert (record.state, record.reason) == (State.CANCELLED, "terminated")


@pytest.mark.parametrize("form", BLOCKING)
@pytest.mark.parametrize("word", ["fail", "retry", "snooze"])
def test_a_cancel_sticks_whatever_the_body_answers(board: Board, form: str, word: str) -> None:
    """No retry and no snooze brings a cancelled task back."""
    [task] = board.submit(f"{form}.last_word", payload={"word": word}, max_attempts=None)
    started(board, task)
    board.cancel(task)
    [record] = board.await_end([task], 20)
    assert (record.state, record.reason) == (State.CANCELLED, "cancelled")


@pytest.mark.parametrize("form", BLOCKING)
def test_a_body_that_finishes_all_the_same_has_completed(board: Board, form: str) -> None:
    """Its effect is there: a record that said otherwise would have it done once more."""
    [task] = board.submit(f"{form}.last_word", payload={"word": "finish"})
    started(board, task)
    board.cancel(task)
    [record] = board.await_end([task], 20)
    assert (record.state, record.result) == (State.COMPLETED, "finished all the same")
    assert record.cancel_requested_at is not None


def test_a_cancel_in_every_waiting_state_takes_effect_at_once(board: Board) -> None:
    board.run(control.pause(board.keys, "thread"))
    try:
        queued, *_ = board.submit("thread.tell")
        [delayed] = board.submit("thread.tell", delay_ms=60_000)
        for task in (queued, delayed):
            assert board.cancel(task)
            record = board.record(task)
            assert (record.state, record.reason) == (State.CANCELLED, "cancelled")
            assert board.cancel(task), "a second cancel is no error"
    finally:
        board.run(control.resume(board.keys, "thread"))
    [backing_off] = board.submit("thread.fail", payload={"how": "retry"}, max_attempts=None)
    wait_until(lambda: board.record(backing_off).attempt > 1, 20, "its first retry")
    board.cancel(backing_off)
    [record] = board.await_end([backing_off])
    assert record.state is State.CANCELLED
    attempt = board.record(backing_off).attempt
    [other] = board.submit("thread.tell", delay_ms=200)
    board.await_end([other])
    assert board.record(backing_off).attempt == attempt
    for task in (queued, delayed):
        assert board.record(task).attempt == 0, "it never ran"


def test_what_was_cancelled_runs_again_when_somebody_asks(board: Board) -> None:
    [task] = board.submit("thread.nap", payload={"seconds": 2})
    started(board, task)
    board.cancel(task)
    board.await_end([task])
    board.run(control.retry(board.keys, task))
    [record] = board.await_end([task])
    assert (record.state, record.result) == (State.COMPLETED, "slept")
