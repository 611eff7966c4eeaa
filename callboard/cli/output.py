"""What commands print: tables for people, the API's own JSON for programs, bare ids for pipes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from callboard import clock

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

Form = Literal["table", "json", "ids"]
Command = TypeVar("Command", bound=Callable[..., Any])

#: Nothing is cut or wrapped where no terminal sets a width: a pipe's reader wants whole lines.
_PIPE_WIDTH = 10_000
_STATE_STYLES = {
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


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Text | str]], *, whole: int = 1) -> None:
    """A table without frame; the first `whole` columns are never cut, numbers stand on the right.

    A column whose name starts with `>` is one of numbers.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(
            column.removeprefix(">").upper(),
            justify="right" if column.startswith(">") else "left",
            no_wrap=index < whole,
            overflow="ignore" if index < whole else "fold",
        )
    for row in rows:
        table.add_row(*(text(cell) if isinstance(cell, str) else cell for cell in row))
    print_rich(table)


def print_rich(renderable: RenderableType) -> None:
    """Anything of rich's, without trailing blanks; colours only on a terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=_PIPE_WIDTH)
    with console.capture() as captured:
        console.print(renderable, crop=False)
    click.echo("\n".join(line.rstrip() for line in captured.get().rstrip("\n").splitlines()))


def text(value: str, style: str = "") -> Text:
    """A cell whose control characters are shown, not obeyed: payloads and logs are other people's words."""
    from rich.text import Text

    return Text(plain(value), style=style)


def plain(value: str) -> str:
    """`value` with control characters other than line breaks and tabs spelled out."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else _spelled(character)
        for character in value
    )


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def one_line(value: str, longest: int = 80) -> str:
    """`value` on one line, cut with an ellipsis."""
    line = " ".join(value.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def state(name: str, reason: str | None = None) -> Text:
    """A state in its colour, with its reason."""
    return text(f"{name} ({reason})" if reason and reason != name else name, _STATE_STYLES.get(name, ""))


def age(moment: datetime | None) -> str:
    """How long ago, in its largest unit: `12s`, `3m`, `5h`, `9d`; `-` for no moment."""
    if moment is None:
        return "-"
    return duration_ms(clock.now_ms() - int(moment.timestamp() * 1000))


def duration_ms(ms: float | None) -> str:
    """A duration in its largest unit, for a table."""
    if ms is None:
        return "-"
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)):
        if abs(ms) >= 2 * size:
            return f"{ms / size:.0f}{unit}"
    return f"{ms / 1000:.3g}s" if abs(ms) >= 1000 else f"{ms:.0f}ms"


def number(value: float | None) -> str:
    """A count for a table."""
    return "-" if value is None else f"{value:,.0f}"
