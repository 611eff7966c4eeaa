"""One task for people: what it is, how it went, what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from callboard.cli.output import age, duration_ms, state
from callboard.cli.table import Cell, Column, plain, print_pairs, print_table
from callboard.client import Attempt, Task

_COLUMNS = (
    Column("id"),
    Column("name", cut=True),
    Column("state"),
    Column("attempt"),
    Column("progress", cut=True),
    Column("age", right=True),
    Column("wait", right=True),
    Column("run", right=True),
)
_ATTEMPT_COLUMNS = (
    Column("attempt"),
    Column("outcome"),
    Column("run", right=True),
    Column("worker", cut=True),
    Column("error", cut=True),
)


def print_tasks(tasks: tuple[Task, ...]) -> None:
    """A table, one task a line."""
    print_table(
        _COLUMNS,
        (
            (
                task.id,
                task.name,
                state(task.state, task.reason),
                attempts(task),
                progress(task),
                age(task.created_at),
                duration_ms(task.wait_ms),
                duration_ms(task.run_ms),
            )
            for task in tasks
        ),
    )


def print_task(task: Task) -> None:
    """All of one task."""
    print_pairs(_lines(task))
    if len(task.attempts) > 1:
        click.echo()
        print_table(
            _ATTEMPT_COLUMNS,
            (
                (
                    str(attempt.number),
                    attempt.outcome or "running",
                    _run(attempt),
                    attempt.worker or "-",
                    f"{attempt.error.type}: {attempt.error.message}" if attempt.error else "-",
                )
                for attempt in task.attempts
            ),
        )
    if task.error is not None and task.error.traceback:
        click.echo()
        click.echo(plain(task.error.traceback.rstrip()))


def attempts(task: Task) -> str:
    """`2/4`, `2` when endless."""
    return f"{task.attempt}/{task.max_attempts}" if task.max_attempts is not None else str(task.attempt)


def progress(task: Task) -> str:
    """`30% reading rows`; `-` for none."""
    told = task.progress
    if told is None:
        return "-"
    share = f"{told.percent:.0f}%" if told.percent is not None else f"{told.current or 0:g}"
    return f"{share} {told.message or ''}".strip()


def _lines(task: Task) -> Iterator[tuple[str, Cell | str]]:
    yield "id", task.id
    yield "name", task.name
    yield "queue", task.queue
    yield "state", state(task.state, task.reason)
    yield "attempt", attempts(task)
    yield "priority", str(task.priority)
    yield "owner", task.owner
    if task.tags:
        yield "tags", ", ".join(task.tags)
    for label, moment in (
        ("created", task.created_at),
        ("due", task.due_at),
        ("started", task.started_at),
        ("finished", task.finished_at),
        ("expires", task.expires_at),
        ("cancel asked", task.cancel_requested_at),
    ):
        if moment is not None:
            yield label, f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    if task.wait_ms is not None:
        yield "waited", duration_ms(task.wait_ms)
    if task.run_ms is not None:
        yield "ran", duration_ms(task.run_ms)
    for label, link in (
        ("worker", task.worker),
        ("parent", task.parent_id),
        ("schedule", task.schedule_id),
        ("resubmitted", task.resubmitted_from),
    ):
        if link is not None:
            yield label, link
    if task.progress is not None:
        yield "progress", progress(task)
    yield "payload", _json(task.payload)
    if task.result is not None or task.state == "completed":
        yield "result", _json(task.result)
    for stop in task.interruptions:
        yield "interrupted", f"{stop.cause} ({stop.worker or 'no worker'})"
    if task.error is not None:
        yield "error", f"{task.error.type}: {task.error.message}"


def _run(attempt: Attempt) -> str:
    if attempt.started_at is None or attempt.finished_at is None:
        return "-"
    return duration_ms((attempt.finished_at - attempt.started_at).total_seconds() * 1000)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
