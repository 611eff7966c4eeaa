"""What the demo shows: a bar for each task (a line for each change where no terminal is), then the table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from callboard.cli.demo.site import SitePage
from callboard.cli.demo.verdict import Finding, Resource, gist, starts

_GIST = 60
_COLOURS = {"completed": "green", "failed": "red", "cancelled": "magenta", "running": "cyan"}
_NARROWEST = 200
"""Columns of the table where no terminal tells: a log must not break its lines."""
_BAR = 24
_COUNT = re.compile(r"\d+")


class Screen(Protocol):
    """Shows the tasks as they go. Entered once; `update` may be called often with the same resource."""

    def __enter__(self) -> Screen: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, text: str) -> None:
        """A line of its own, above what moves."""

    def update(self, page: SitePage, task: Resource, *, stranded: bool = False) -> None:
        """The task's present state; `stranded`: it is held by a worker that is known to be dead."""


def make_console() -> Console:
    """A console on standard output, wide enough for the table when it is no terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(console.width, _NARROWEST))
    return console


def make_screen(console: Console, pages: Sequence[SitePage]) -> Screen:
    return Bars(console, pages) if console.is_terminal else Lines(console)


class Bars:
    """A bar for each task."""

    def __init__(self, console: Console, pages: Sequence[SitePage]) -> None:
        self._progress = Progress(
            TextColumn("  {task.fields[mark]} {task.description}"),
            BarColumn(bar_width=_BAR),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}"),
            console=console,
            refresh_per_second=10,
        )
        width = max((len(page.path) for page in pages), default=0)
        # A long note would take its place from the bars.
        self._room = max(20, console.width - width - _BAR - 12)
        self._bars: dict[str, TaskID] = {
            page.path: self._progress.add_task(
                escape(page.path.ljust(width)),
                total=100,
                mark="·",
                note=f"[dim]{escape(page.note[: self._room])}[/]",
            )
            for page in pages
        }

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._progress.console.print(text)

    def update(self, page: SitePage, task: Resource, *, stranded: bool = False) -> None:
        state = str(task["state"])
        mark = {"completed": "[green]✓[/]", "failed": "[red]✗[/]", "running": "[cyan]▸[/]"}.get(state, "·")
        self._progress.update(
            self._bars[page.path],
            completed=100 if state == "completed" else percent(task),
            mark=mark,
            note=f"[{_COLOURS.get(state, 'dim')}]{escape(stage(task, stranded=stranded)[: self._room])}[/]",
        )


class Lines:
    """A line for each change of state, attempt or step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, str] = {}

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def update(self, page: SitePage, task: Resource, *, stranded: bool = False) -> None:
        line = stage(task, stranded=stranded)
        # A count that grows is no change worth a line.
        step = _COUNT.sub("", line) + str(starts(task))
        if self._shown.get(page.path) != step:
            self._shown[page.path] = step
            self._console.print(f"  {page.path}: {escape(line)}", soft_wrap=True)


def percent(task: Resource) -> float:
    """How far a task is by its own report, 0 to 100."""
    progress = task.get("progress")
    if task["state"] in ("queued", "pending") or not isinstance(progress, Mapping):
        return 0.0
    return float(progress.get("percent") or 0.0)


def stage(task: Resource, *, stranded: bool = False) -> str:
    """A task's state in words: `running, attempt 2: fetching`, `failed: 404 Not Found …`."""
    state = str(task["state"])
    if stranded:
        return "held by the dead worker"
    words = state
    if state == "pending" and task.get("reason"):
        words = f"{state} ({task['reason']})"
    if starts(task) > 1 and state != "completed":
        words += f", attempt {starts(task)}"
    progress = task.get("progress")
    if state == "running" and isinstance(progress, Mapping) and progress.get("message"):
        words += f": {progress['message']}"
    if state == "failed":
        words += f": {gist(task)[:_GIST]}"
    return words


def outcome_table(findings: Sequence[Finding]) -> Table:
    """Task, state, attempts, wait, run, and the first 60 characters of the result or the explanation."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("attempts", justify="right")
    table.add_column("wait", justify="right", no_wrap=True)
    table.add_column("run", justify="right", no_wrap=True)
    table.add_column("result", overflow="fold")
    for finding in findings:
        task = finding.task
        if task is None:
            table.add_row(finding.page.path, "[red]lost[/]", "", "", "", "")
            continue
        state = str(task["state"])
        table.add_row(
            escape(finding.page.path),
            f"[{_COLOURS.get(state, 'yellow')}]{state}[/]",
            attempts(task),
            seconds(task.get("wait_ms")),
            seconds(task.get("run_ms")),
            escape(gist(task)[:_GIST]),
        )
    return table


def attempts(task: Resource) -> str:
    """How many, and what became of those before the last and of interrupted ones: `3 (lost, 503)`."""
    earlier = [_attempt(entry) for entry in (task.get("attempts") or ())[: starts(task) - 1]]
    earlier += [str(stop.get("cause")) for stop in task.get("interruptions") or ()]
    return f"{starts(task)} ({', '.join(earlier)})" if earlier else str(starts(task))


def _attempt(entry: Mapping[str, object]) -> str:
    error = entry.get("error")
    message = str(error.get("message") or "") if isinstance(error, Mapping) else ""
    word = message.partition(" ")[0]
    # An HTTP status is the shortest story; else the outcome's own name (lost, failed, timeout).
    return word if word.isdigit() else str(entry.get("outcome"))


def seconds(ms: object) -> str:
    return f"{ms / 1000:.1f} s" if isinstance(ms, int | float) else "–"
