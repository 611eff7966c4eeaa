"""What people see: ages, sizes, other people's words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from callboard import clock
from callboard.cli import output


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, "-"),
        (0, "0ms"),
        (999, "999ms"),
        (1500, "1.5s"),
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
    assert output.plain("a\x1b[31mred\x07\u202e\x9b\tä\n") == "a\\x1b[31mred\\x07\\u202e\\x9b\tä\n"
    output.print_table(("a", "b"), [("\x1b]0;x\x07", "[bold]not markup[/bold] :smile:")])
    assert capsys.readouterr().out.splitlines()[1] == "\\x1b]0;x\\x07  [bold]not markup[/bold] :smile:"


def test_a_pipe_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("id", ">n"), [("x" * 500, "7"), ("y", "1234")])
    first, second, third = capsys.readouterr().out.splitlines()
    assert second == "x" * 500 + "     7"
    assert third == "y" + " " * 501 + "1234"
    assert first.startswith("ID ")
    assert not any(line.endswith(" ") for line in (first, second, third))


def test_one_line_cuts_with_an_ellipsis() -> None:
    assert output.one_line("a\nb  c") == "a b c"
    assert output.one_line("x" * 100, 10) == "x" * 9 + "…"
