"""Waiting for a task at the terminal, with its progress as a bar."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from callboard import clock
from callboard.cli.table import one_line, plain
from callboard.errors import Unavailable

if TYPE_CHECKING:
    from callboard.client import Client, Event, Task


def watch(client: Client, task: Task, timeout_seconds: float | None, *, visible: bool) -> Task:
    """The task once it has ended. `visible`: show progress, if standard error is a terminal.

    Raises WaitTimeout; Ctrl-C leaves the task running.
    """
    deadline = None if timeout_seconds is None else clock.monotonic() + timeout_seconds
    if visible and sys.stderr.isatty() and not task.ended:
        with suppress(Unavailable):  # the stream is for the eyes; what counts is asked for below
            _follow(client, task, deadline)
    left = None if deadline is None else max(0.0, deadline - clock.monotonic())
    return client.wait(task.id, left)


def _follow(client: Client, task: Task, deadline: float | None) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with (
        client.task_events(task.id) as stream,
        Progress(*columns, console=Console(stderr=True), transient=True) as screen,
    ):
        bar = screen.add_task(str(task.state), total=None)
        if client.task(task.id).ended:
            return
        for event in stream:
            told = event.progress
            screen.update(
                bar,
                description=_description(event),
                total=told.total if told else None,
                completed=told.current if told else None,
            )
            if event.ends_task or (deadline is not None and clock.monotonic() >= deadline):
                return


def _description(event: Event) -> str:
    word = event.state or event.type.rpartition(".")[2]
    attempt = f", attempt {event.attempt}" if event.attempt and event.attempt > 1 else ""
    message = event.progress.message if event.progress else None
    return one_line(plain(f"{word}{attempt}" + (f": {message}" if message else "")), 60)
