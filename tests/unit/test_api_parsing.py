"""The parsers of the API by themselves."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.events.stream import Event
from callboard_api.answers import encode, takes_gzip
from callboard_api.problems import Rejected
from callboard_api.schemas.body import strict_json
from callboard_api.streams import cursor
from callboard_api.streams.cursor import BadCursor
from callboard_api.streams.listener import Interest, Listener, Signal
from callboard_api.waiting import preferred_seconds

texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner),
    max_leaves=20,
)


class TestStrictJson:
    @given(plain)
    def test_what_is_json_comes_back(self, value: Any) -> None:
        assert strict_json(json.dumps(value).encode()) == value
        assert strict_json(json.dumps(value, ensure_ascii=False).encode()) == value

    @given(st.binary(max_size=100))
    def test_anything_else_is_rejected_and_nothing_worse(self, raw: bytes) -> None:
        with suppress(Rejected):
            strict_json(raw)

    def test_many_brackets_without_depth_are_fine(self) -> None:
        assert strict_json(b"[" + b"[],{}," * 500 + b"[]]")

    def test_a_surrogate_pair_is_a_character(self) -> None:
        assert strict_json(b'"\\ud834\\udd1e"') == "𝄞"

    def test_a_hostile_body_is_refused_quickly(self) -> None:
        began = time.monotonic()
        hostile = (
            b"[" * 1_000_000,
            b'{"a":' * 200_000,
            b"-" + b"9" * 1_000_000,
            b'"' + b"\\u0041" * 150_000 + b'"',
        )
        for raw in hostile:
            with suppress(Rejected):
                strict_json(raw)
        assert time.monotonic() - began < 5


class TestCursor:
    places = st.dictionaries(
        st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,63}", fullmatch=True),
        st.tuples(st.integers(0, 2**50), st.integers(0, 2**40)),
        max_size=5,
    )

    @given(places)
    def test_a_round_trip(self, places: dict[str, tuple[int, int]]) -> None:
        word = cursor.encode(places)
        assert cursor.decode(word) == places
        assert word.isascii()
        assert not set(word) & set(' ,;"\\\n\r')

    @given(st.text(max_size=60).map(lambda text: "c1." + text) | st.text(max_size=60))
    def test_anything_else_is_no_cursor(self, word: str) -> None:
        try:
            places = cursor.decode(word)
        except BadCursor:
            return
        assert all(ms >= 0 and number >= 0 for ms, number in places.values())


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=5", 5), ("wait=0", 0), ("WAIT = 7", 7), ("respond-async, wait=10", 10), ("wait=50;x=y", 50),
        ("wait=51", 50), ('wait="3"', 3), ("wait=3, wait=9", 3), ("", None), ("wait", None), ("wait=", None),
        ("wait=-1", None), ("wait=1.5", None), ("await=5", None), ("wait=5x", None),
        ("wait=9999999999", 50), ("wait=" + "9" * 9000, 50), ("wait=00000000000003", 3), ("wait=000", 0),
    ],
)  # fmt: skip
def test_prefer(header: str, seconds: int | None) -> None:
    assert preferred_seconds(header) == seconds


@pytest.mark.timeout(20)
@pytest.mark.parametrize("filler", ["0", "9", " ", ",", "wait=0 ,", ", wait"])
def test_no_header_holds_the_process(filler: str) -> None:
    # As long as a head may be; a pattern that goes back over it would take minutes.
    assert preferred_seconds("wait=" + filler * (60_000 // len(filler)) + "x") in (None, 0)


@pytest.mark.parametrize(
    ("header", "takes"),
    [
        (None, False), (b"", False), (b"gzip", True), (b"deflate, gzip;q=1.0", True), (b"*", True),
        (b"gzip;q=0", False), (b"gzip; q=0.000", False), (b"br, identity", False), (b"GZIP", True),
        (b"xgzip", False),
    ],
)  # fmt: skip
def test_accept_encoding(header: bytes | None, takes: bool) -> None:
    headers = [] if header is None else [(b"accept-encoding", header)]
    assert takes_gzip({"headers": headers}) is takes


def test_what_json_cannot_say_becomes_null() -> None:
    assert encode({"a": [float("nan"), float("inf"), 1.5], "b": ("x",)}) == b'{"a":[null,null,1.5],"b":["x"]}'
    assert encode("\ud800") == b'"?"'


def event(number: int, kind: str = "task.queued", task_id: str = "q_a") -> Signal:
    return Signal(Event(f"{number}-0", kind, task_id, "n", "q", "default", 1, "queued", None))


class TestListener:
    async def test_a_slow_reader_is_ended_when_the_buffer_is_full(self) -> None:
        listener = Listener(Interest(), most_waiting=3)
        listener.replaying = False
        for number in range(3):
            listener.offer(event(number))
        assert listener.ended is None
        listener.offer(event(3))
        assert listener.ended == "slow"
        assert listener.too_slow.is_set()

    async def test_while_it_replays_what_overflows_is_left_to_the_stream(self) -> None:
        listener = Listener(Interest(), most_waiting=3)
        for number in range(5):
            listener.offer(event(number))
        assert listener.ended is None
        assert listener.overflowed
        assert [signal.place[0] for signal in await listener.take(0)] == [4]

    async def test_nothing_is_told_twice(self) -> None:
        listener = Listener(Interest())
        assert not listener.heard(event(5))
        assert listener.heard(event(5))
        assert listener.heard(event(4))
        assert not listener.heard(event(6))

    async def test_take_returns_empty_handed_after_its_time(self) -> None:
        assert await Listener(Interest()).take(0.01) == []

    async def test_a_tasks_own_stream_alone_hears_of_log_lines(self) -> None:
        line = event(1, "task.logged")
        assert not Interest().matches(line.event)
        assert Interest(task_id="q_a").matches(line.event)
        assert not Interest(task_id="q_b").matches(line.event)
