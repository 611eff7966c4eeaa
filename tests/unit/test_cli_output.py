"""What people see: ages, sizes, other people's words."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import click
import pytest

from callboard import clock
from callboard.cli import output, table
from callboard.cli.table import Column, print_table


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, "-"),
        (0, "0ms"),
        (999, "999ms"),
        (1500, "1.5s"),
        (16_300, "16s"),
        (90_000, "90s"),
        (130_000, "2m"),
        (7_300_000, "2h"),
        (200_000_000, "2d"),
    ],
)
def test_durations_in_their_largest_unit(ms: float | None, text: str) -> None:
    assert output.duration_ms(ms) == text


def test_ages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: 1_000_000)
    assert output.age(datetime.fromtimestamp(970, UTC)) == "30s"
    assert output.age(None) == "-"


def test_control_characters_are_shown_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert table.plain("a\x1b[31mred\x07\u202e\x9b\tä\n") == "a\\x1b[31mred\\x07\\u202e\\x9b\tä\n"
    print_table((Column("a"), Column("b")), [("\x1b]0;x\x07", "two\nlines")])
    assert capsys.readouterr().out.splitlines()[1] == "\\x1b]0;x\\x07  two lines"
    table.print_pairs([("a", "1"), ("long", "two\n  lines\x1b")])
    assert capsys.readouterr().out == "a     1\nlong  two\n        lines\\x1b\n"


COLUMNS = (Column("id"), Column("n", right=True), Column("text", cut=True))


def test_a_pipe_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(COLUMNS, [("x" * 500, "7", "a"), ("y", "1234", "")])
    first, second, third = capsys.readouterr().out.splitlines()
    assert second == "x" * 500 + "     7  a"
    assert third == "y" + " " * 501 + "1234"
    assert first.startswith("ID ")


def test_a_terminal_gets_lines_that_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((40, 20)))
    print_table(COLUMNS, [("x" * 20, "7", "日本語" * 10), ("y", "1", "short")])
    lines = [click.unstyle(line) for line in capsys.readouterr().out.splitlines()]
    assert [table.width(line) for line in lines] == [29, 40, 30]
    assert lines[1] == "x" * 20 + "  7  日本語日本語日…"
    # What may not be cut is not, even where it does not fit.
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((10, 20)))
    print_table(COLUMNS, [("x" * 20, "7", "a long text")])
    assert click.unstyle(capsys.readouterr().out.splitlines()[1]) == "x" * 20 + "  7  a long …"


def test_colours_are_for_those_who_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for setting, coloured in (("1", False), ("", True)):
        monkeypatch.setenv("NO_COLOR", setting)
        table.colourful.cache_clear()
        assert ("\x1b" in table._padded(output.state("failed"), 6, right=False)) is coloured
    table.colourful.cache_clear()


def test_one_line_cuts_with_an_ellipsis() -> None:
    assert table.one_line("a\nb  c") == "a b c"
    assert table.one_line("x" * 100, 10) == "x" * 9 + "…"
