"""What commands print: tables for people, the API's own JSON for programs, bare ids for pipes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Literal, TypeVar

import click

from callboard import clock
from callboard.cli.table import Cell

Form = Literal["table", "json", "ids"]
Command = TypeVar("Command", bound=Callable[..., Any])

_STATE_COLOURS = {
    "pending": "blue",
    "queued": "cyan",
    "running": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelled": "magenta",
}


def output_options(*, shorthand_json: bool = True) -> Callable[[Command], Command]:
    """Add `--output`, `--quiet` and, unless the command has another use for it, `--json`; gives `form`."""

    def decorate(command: Command) -> Command:
        command = click.option(
            "--quiet", "-q", "form", flag_value="ids", help="Print ids alone, one a line.", expose_value=True
        )(command)
        if shorthand_json:
            command = click.option("--json", "form", flag_value="json", help="Print the API's JSON.")(command)
        return click.option(
            "--output",
            "-o",
            "form",
            type=click.Choice(["table", "json", "ids"]),
            default="table",
            show_default=True,
            help="What to print.",
        )(command)

    return decorate


def print_json(document: Any) -> None:
    """A JSON document, indented."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


def print_json_line(document: Any) -> None:
    """A JSON document on one line, for streams (JSON Lines); flushed at once."""
    click.echo(json.dumps(document, ensure_ascii=False, separators=(",", ":")))


def print_ids(ids: Iterable[str]) -> None:
    """Ids, one a line."""
    for task_id in ids:
        click.echo(task_id)


def state(name: str, reason: str | None = None) -> Cell:
    """A state in its colour, with its reason."""
    return Cell(f"{name} ({reason})" if reason and reason != name else name, _STATE_COLOURS.get(name))


def age(moment: datetime | None) -> str:
    """How long ago, in its largest unit: `12s`, `3m`, `5h`, `9d`; `-` for no moment."""
    if moment is None:
        return "-"
    return duration_ms(max(0, clock.now_ms() - int(moment.timestamp() * 1000)) // 1000 * 1000)


def duration_ms(ms: float | None) -> str:
    """A duration in its largest unit, for a table."""
    if ms is None:
        return "-"
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)):
        if ms >= 2 * size:
            return f"{ms / size:.0f}{unit}"
    if ms >= 10_000:
        return f"{ms / 1000:.0f}s"
    return f"{ms / 1000:.3g}s" if ms >= 1000 else f"{ms:.0f}ms"


def number(value: float | None) -> str:
    """A count for a table."""
    return "-" if value is None else f"{value:,.0f}"
