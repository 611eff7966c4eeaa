"""Tables for people: no frame, one line a row, cut to the terminal and never in a pipe."""

from __future__ import annotations

import functools
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import click

_GAP = 2
#: A column that may be cut keeps so much.
_NARROWEST = 8


@dataclass(frozen=True, slots=True)
class Column:
    """A column. right: numbers stand on the right. cut: it may be shortened to fit a terminal."""

    title: str
    right: bool = False
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """A text in a colour, one of click's."""

    text: str
    colour: str | None = None


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[Cell | str]]) -> None:
    """A heading and a line for each row. Control characters are shown, not obeyed."""
    heading = [Cell(column.title.upper()) for column in columns]
    lines = [heading, *([_tame(cell) for cell in row] for row in rows)]
    widths = [max(width(line[index].text) for line in lines) for index in range(len(columns))]
    if sys.stdout.isatty():
        widths = _fit(widths, columns, shutil.get_terminal_size().columns)
    for number, line in enumerate(lines):
        cells = [
            _padded(cell, size, column.right)
            for cell, size, column in zip(line, widths, columns, strict=True)
        ]
        text = (" " * _GAP).join(cells).rstrip()
        click.echo(click.style(text, bold=True) if number == 0 and colourful() else text)


def print_pairs(pairs: Iterable[tuple[str, Cell | str]]) -> None:
    """A line for each label and its value; a value of several lines is indented."""
    found = [(label, _tame(value, keep_lines=True)) for label, value in pairs]
    indent = max(len(label) for label, _ in found) + _GAP
    for label, value in found:
        lines = value.text.split("\n")
        first = _coloured(replace(value, text=lines[0]))
        head = label.ljust(indent)
        click.echo(f"{click.style(head, bold=True) if colourful() else head}{first}".rstrip())
        for line in lines[1:]:
            click.echo(f"{' ' * indent}{line}")


def plain(value: str) -> str:
    """`value` with control characters other than line breaks and tabs spelled out."""
    return "".join(
        character
        if character.isprintable() or character in "\n\t"
        else character.encode("unicode_escape").decode("ascii")
        for character in value
    )


def one_line(value: str, longest: int = 10_000) -> str:
    """`value` on one line, cut with an ellipsis."""
    return cut(" ".join(value.split()), longest)


def cut(value: str, longest: int) -> str:
    """`value` in at most so many places of a terminal."""
    if width(value) <= longest:
        return value
    kept, used = "", 0
    for character in value:
        used += width(character)
        if used > longest - 1:
            break
        kept += character
    return f"{kept}…"


def width(value: str) -> int:
    """The places that a text takes on a terminal."""
    if value.isascii():
        return len(value)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in value
    )


@functools.cache
def colourful() -> bool:
    """Whether colours are wanted; click leaves them out by itself where there is no terminal."""
    from callboard.settings import colours_wanted

    return colours_wanted()


def _tame(cell: Cell | str, *, keep_lines: bool = False) -> Cell:
    found = Cell(cell) if isinstance(cell, str) else cell
    text = plain(found.text)
    return replace(found, text=text if keep_lines else one_line(text))


def _fit(widths: Sequence[int], columns: Sequence[Column], room: int) -> list[int]:
    """Shorten what may be cut, the widest first, until a line fits or nothing more can go."""
    fitted = list(widths)
    while sum(fitted) + _GAP * (len(fitted) - 1) > room:
        shrinkable = [
            index for index, column in enumerate(columns) if column.cut and fitted[index] > _NARROWEST
        ]
        if not shrinkable:
            break
        fitted[max(shrinkable, key=lambda index: fitted[index])] -= 1
    return fitted


def _padded(cell: Cell, size: int, right: bool) -> str:
    text = cut(cell.text, size)
    blank = " " * (size - width(text))
    coloured = _coloured(replace(cell, text=text))
    return blank + coloured if right else coloured + blank


def _coloured(cell: Cell) -> str:
    return click.style(cell.text, fg=cell.colour) if cell.colour and colourful() else cell.text
