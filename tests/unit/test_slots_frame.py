"""Frames between a worker and its children."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard_worker.slots import frame
from callboard_worker.slots.slot import Outcome, TaskError
from tests.support.recording import assignment

text = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.tuples(st.integers(0, 100), text, st.binary()), max_size=10), st.integers(1, 50))
def test_frames_survive_any_cut(frames: list[tuple[int, str, bytes]], size: int) -> None:
    stream = b"".join(frame.pack(*fields) for fields in frames)
    reader = frame.Reader()
    got = [
        message
        for start in range(0, len(stream), size)
        for message in reader.feed(stream[start : start + size])
    ]
    assert [tuple(message) for message in got] == frames


@pytest.mark.parametrize("junk", [b"\x05", b"\xc1", b"\x90", b"print to the wrong place\n"])
def test_what_is_no_frame_is_refused(junk: bytes) -> None:
    with pytest.raises(frame.BadFrame):
        list(frame.Reader().feed(junk))


def test_text_that_no_wire_carries_becomes_question_marks() -> None:
    [message] = frame.Reader().feed(frame.pack(frame.LOGGED, 1, "info", "a\ud800b"))
    assert message[3] == "a?b"


def test_an_assignment_crosses_without_its_token_and_hard_limit() -> None:
    sent = assignment("slots.add", {"left": 1}, message=b"m", soft_limit_ms=5, memory_limit_bytes=7)
    [message] = frame.Reader().feed(frame.pack(frame.RUN, 3, frame.assignment_fields(sent)))
    got = frame.assignment_from(message[2])
    assert got.token == ""
    for field in ("task_id", "name", "queue", "owner", "attempt", "max_attempts", "payload", "message"):
        assert getattr(got, field) == getattr(sent, field)
    assert (got.soft_limit_ms, got.hard_limit_ms, got.memory_limit_bytes) == (5, None, 7)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("completed", result=b"1", run_ms=3),
        Outcome("failed", error=TaskError("E", "m", "t", retryable=False)),
        Outcome("retry", retry_after_ms=5, counts=False),
    ],
)
def test_an_outcome_crosses_whole(outcome: Outcome) -> None:
    [message] = frame.Reader().feed(frame.pack(frame.DONE, 1, frame.outcome_fields(outcome)))
    assert frame.outcome_from(message[2]) == outcome


def test_objects_stay_where_they_are() -> None:
    error = ValueError("x")
    fields = frame.outcome_fields(Outcome("failed", exception=error, value=object()))
    assert frame.outcome_from(fields).exception is None
