"""`callboard submit`: a task from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from callboard.cli.exits import Exit
from callboard.cli.output import Form, output_options, print_json
from callboard.cli.session import api
from callboard.cli.terms import Attempts, Duration, Moment, payload_of

if TYPE_CHECKING:
    from callboard.client import Task


@click.command(epilog="Example: callboard submit build month=2026-11 rows=100 --queue reports --wait")
@click.argument("name")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--json",
    "file",
    metavar="FILE",
    help="Take the payload from a JSON file (`-`: standard input); KEY=VALUE wins over it.",
)
@click.option("--queue", help="Another queue than the task's own.")
@click.option("--delay", type=Duration(), help="Not before so long from now: 90, 10m, 2h30m.")
@click.option("--at", "run_at", type=Moment(), help="Not before this time: 2026-11-22T09:30:00Z.")
@click.option("--priority", type=click.IntRange(0, 9), help="0 goes first, 9 last.")
@click.option("--tag", "tags", multiple=True, help="May be given several times.")
@click.option("--fairness-key", metavar="KEY", help="Whose turn it is; by default the owner's.")
@click.option("--expires-in", type=Duration(), help="Not to be started after so long from now.")
@click.option("--max-attempts", type=Attempts(), help="1 or more, or `endless`.")
@click.option("--wait", is_flag=True, help="Wait until it has ended and show the result.")
@click.option("--timeout", type=Duration(), help="With --wait: how long at most; the task goes on.")
@output_options(shorthand_json=False)
def submit(
    name: str,
    pairs: tuple[str, ...],
    file: str | None,
    queue: str | None,
    delay: float | None,
    run_at: datetime | None,
    priority: int | None,
    tags: tuple[str, ...],
    fairness_key: str | None,
    expires_in: float | None,
    max_attempts: int | None,
    wait: bool,
    timeout: float | None,
    form: Form,
) -> None:
    """Submit the task NAME.

    A VALUE is JSON if it parses (rows=3, flag=true, who='"7"'), else a string; KEY=@FILE reads it from a
    file. With --wait the exit code is 1 unless the task completed.
    """
    if delay is not None and run_at is not None:
        raise click.UsageError("Give --delay or --at, not both.")
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait.")
    payload = payload_of(pairs, file)
    options: dict[str, Any] = {
        "queue": queue,
        "delay_seconds": delay,
        "run_at": run_at,
        "priority": priority,
        "fairness_key": fairness_key,
        "tags": tags,
        "expires_in_seconds": expires_in,
    }
    if max_attempts is not None:
        options["max_attempts"] = max_attempts or None
    with api() as client:
        task = client.submit(name, payload, **options)
        if wait:
            from callboard.cli.watching import watch

            if form == "table":
                click.echo(f"Submitted {task.id}", err=True)
            task = watch(client, task, timeout, visible=form == "table")
    show_submitted(task, form, ended=wait)


def show_submitted(task: Task, form: Form, *, ended: bool = False) -> None:
    """Print a new task, or how it ended; then the exit code is 1 unless it completed."""
    if form == "json":
        print_json(task.document)
    elif form == "ids":
        click.echo(task.id)
    elif ended:
        from callboard.cli.task_view import print_task

        print_task(task)
    else:
        click.echo(f"{task.id}  {_standing(task.document)}")
    if ended and task.state != "completed":
        raise SystemExit(Exit.TASK_FAILED)


def _standing(task: Mapping[str, Any]) -> str:
    due = task.get("due_at")
    return f"{task['state']}, due {due}" if task["state"] == "pending" and due else str(task["state"])
