"""Cutting, counting and splitting lines of a task's log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard_worker.slots.lines import LineSplitter, LogBudget, clip, clip_start


@given(st.text(), st.integers(min_value=8, max_value=64))
def test_a_clipped_text_fits_and_keeps_its_beginning(text: str, limit: int) -> None:
    cut = clip(text, limit)
    assert len(cut.encode()) <= limit
    # Lone surrogates are replaced first; the rest is kept from the start.
    whole = text.encode("utf-8", "replace").decode()
    assert cut == whole or (cut.endswith("…") and whole.startswith(cut[:-1]))


@given(st.text(), st.integers(min_value=8, max_value=64))
def test_a_text_clipped_at_its_start_fits_and_keeps_its_end(text: str, limit: int) -> None:
    cut = clip_start(text, limit)
    assert len(cut.encode()) <= limit
    whole = text.encode("utf-8", "replace").decode()
    assert cut == whole or (cut.startswith("…\n") and whole.endswith(cut[2:]))


def test_a_text_that_just_fits_is_whole() -> None:
    assert clip("ä" * 4, 8) == "ä" * 4
    assert clip("ä" * 5, 8) == "ää…"
    assert clip("\ud800", 8) == "?"


def test_a_budget_ends_after_its_lines_and_says_so_once() -> None:
    budget = LogBudget(lines=2)
    assert [budget.admit(text) for text in "abcd"] == ["a", "b", None, None]
    assert budget.spent
    notice = budget.notice()
    assert notice is not None
    assert notice.startswith("2 more log lines were dropped")
    assert budget.notice() is None


def test_a_budget_ends_after_its_bytes() -> None:
    budget = LogBudget(lines=100, size_bytes=10)
    assert budget.admit("x" * 12) == "x" * 12
    assert budget.admit("y") is None


def test_a_budget_cuts_a_line_to_its_length() -> None:
    line = LogBudget().admit("x" * 20_000)
    assert line is not None
    assert len(line.encode()) == 8 * 1024


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_lines_do_not_depend_on_how_the_stream_is_cut(chunks: list[bytes]) -> None:
    splitter, whole = LineSplitter(), LineSplitter()
    cut = [line for chunk in chunks for line in splitter.feed(chunk)] + list(splitter.flush())
    uncut = list(whole.feed(b"".join(chunks))) + list(whole.flush())
    assert cut == uncut


def test_a_line_without_end_is_cut_once_and_its_rest_skipped() -> None:
    splitter = LineSplitter()
    lines = [*splitter.feed(b"x" * 9_000), *splitter.feed(b"y" * 9_000), *splitter.feed(b"z\nnext\n")]
    assert [len(line.encode()) for line in lines] == [8 * 1024, 4]
    assert lines[1] == "next"


def test_a_begun_line_comes_with_flush() -> None:
    splitter = LineSplitter()
    assert list(splitter.feed(b"whole\r\nbegun")) == ["whole"]
    assert list(splitter.flush()) == ["begun"]
    assert list(splitter.flush()) == []


@pytest.mark.parametrize(
    ("data", "count", "then"), [(b"a\nb", 1, ["c"]), (b"a\nb\n", 2, ["c"]), (b"a", 0, [])]
)
def test_skipped_bytes_are_counted_in_lines(data: bytes, count: int, then: list[str]) -> None:
    splitter = LineSplitter()
    assert splitter.skip(data) == count
    rest = b"\nc\n" if not data.endswith(b"\n") and count else b"c\n"
    assert list(splitter.feed(rest)) == then
