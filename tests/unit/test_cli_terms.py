"""What is typed: values, durations, times, attempts."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard import clock
from callboard.cli.terms import Attempts, Duration, Moment, payload_of


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("a=3", 3),
        ("a=-1.5e3", -1500.0),
        ("a=true", True),
        ("a=null", None),
        ("a=[1, {}]", [1, {}]),
        ('a="7"', "7"),
        ("a=2026-11", "2026-11"),
        ("a=hello there", "hello there"),
        ("a=", ""),
        ("a=x=y", "x=y"),
        ("a=NaN", "NaN"),
        ("a=-Infinity", "-Infinity"),
        ('a={"b": 1, "b": 2}', '{"b": 1, "b": 2}'),
        ("a=" + "[" * 100_000, "[" * 100_000),
        ("a=True", "True"),
    ],
)
def test_a_value_is_json_if_it_parses(pair: str, value: Any) -> None:
    found = payload_of([pair])["a"]
    assert (found, type(found)) == (value, type(value))


@given(st.text().filter(lambda text: not text.startswith("@")))
def test_any_text_is_some_value(text: str) -> None:
    assert set(payload_of([f"a={text}"])) == {"a"}


def test_values_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").write_text("two\nlines\n", encoding="utf-8")
    (tmp_path / "number").write_text(" 12\n", encoding="utf-8")
    (tmp_path / "base.json").write_text('{"a": 1, "b": 2}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO('{"c": 3}'))
    assert payload_of(["t=@text", "n=@number"]) == {"t": "two\nlines\n", "n": 12}
    assert payload_of(["b=9"], "base.json") == {"a": 1, "b": 9}
    assert payload_of([], "-") == {"c": 3}


@pytest.mark.parametrize(
    ("pairs", "file", "said"),
    [
        (["novalue"], None, "'novalue' is not NAME=VALUE"),
        (["=x"], None, "is not NAME=VALUE"),
        (["a=1", "a=2"], None, "'a' is given twice"),
        (["a=@missing"], None, "'missing' cannot be read: No such file"),
        ([], "missing", "cannot be read"),
        ([], "list.json", "holds a list; a payload is a JSON object"),
        ([], "bad.json", "'bad.json' is not JSON: a key is there twice"),
        ([], "binary", "is not UTF-8 text"),
    ],
)
def test_what_cannot_be_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: list[str], file: str | None, said: str
) -> None:
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    (tmp_path / "bad.json").write_text('{"a": 1, "a": 2}', encoding="utf-8")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(click.UsageError) as error:
        payload_of(pairs, file)
    assert said in error.value.format_message()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("250ms", 0.25), ("10m", 600), ("2h30m", 9000), ("1d", 86400), ("1W", 604800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "h", "-5", "5x", "1h 30", "nan", "inf", "1e3", "٣"])
def test_no_durations(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


def test_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: 1_000_000_000_000)
    assert Moment().convert("2026-11-22T10:30:00+01:00", None, None) == datetime(
        2026, 11, 22, 9, 30, tzinfo=UTC
    )
    assert Moment(ago=True).convert("1h", None, None) == datetime(2001, 9, 9, 0, 46, 40, tzinfo=UTC)
    for text in ("1h", "2026-11-22T10:30:00", "yesterday"):
        with pytest.raises(click.BadParameter):
            Moment().convert(text, None, None)


def test_attempts() -> None:
    assert Attempts().convert("3", None, None) == 3
    assert Attempts().convert("endless", None, None) == 0
    for text in ("0", "-1", "1.5", "many"):
        with pytest.raises(click.BadParameter):
            Attempts().convert(text, None, None)
