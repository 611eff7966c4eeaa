"""One line of the table, and what every measurement is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from callboard.storage.embedded import EmbeddedServer


@dataclass(frozen=True)
class Line:
    """`measured` against `target`; `holds` None for a line that is only told. `beside`: what explains it.

    `load`: the machine's load average before and after.
    """

    what: str
    measured: str
    target: str = ""
    holds: bool | None = None
    beside: str = ""
    load: str = ""


@dataclass(frozen=True)
class Stage:
    """Where a measurement takes place: an own Redis, a scratch folder, and whether to be quick."""

    server: EmbeddedServer
    folder: Path
    quick: bool = False

    def size(self, whole: int, quick: int) -> int:
        """How many of something: `whole` for figures that count, `quick` to see that it works."""
        return quick if self.quick else whole


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of `values` do not exceed."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def render(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table."""
    rows = [("what", "measured", "target", "holds", "load", "beside")]
    for line in lines:
        holds = {True: "yes", False: "**no**", None: ""}[line.holds]
        rows.append((line.what, line.measured, line.target, holds, line.load, line.beside))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    rows.insert(1, tuple("-" * width for width in widths))  # type: ignore[arg-type]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    )
