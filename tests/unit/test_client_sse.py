"""The decoder of event streams, byte by byte."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.client import sse
from callboard.client.sse import Decoder, Frame

STREAM = (
    b"\xef\xbb\xbfretry: 2000\n\n: ping\n\n"
    b'event: task.started\nid: c1\ndata: {"a":\ndata: 1}\n\n'
    b"data:no blank\r\nid: c2\r\n\r\n"
    b"event: forgotten\n\n"
    b"data\rid: c\x00bad\rother: x\rretry: soon\r\r"
    b"data: \xc3\xa4\xf0\x9f\x8e\x88\n\nevent: unfinished\ndata: x\n"
)
FRAMES = [
    Frame("task.started", '{"a":\n1}', "c1"),
    Frame("message", "no blank", "c2"),
    Frame("message", "", "c2"),
    Frame("message", "ä🎈", "c2"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_how_the_bytes_are_cut_does_not_matter(cuts: list[int]) -> None:
    decoder = Decoder()
    places = [0, *sorted(cuts), len(STREAM)]
    frames = [frame for start, end in pairwise(places) for frame in decoder.feed(STREAM[start:end])]
    assert frames == FRAMES
    assert decoder.retry_ms == 2000
    assert decoder.last_id == "c2"


def test_an_id_of_an_earlier_connection_stays() -> None:
    assert Decoder("c9").feed(b"data: x\n\n") == [Frame("message", "x", "c9")]


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LONGEST_LINE", 100)
    with pytest.raises(ValueError, match="without end"):
        Decoder().feed(b"data: " + b"x" * 200)
