"""`callboard tasks`: look at tasks, stop them, run them again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from callboard.cli.exits import Exit, exit_of
from callboard.cli.group import complain
from callboard.cli.output import Form, output_options, print_ids, print_json, print_json_line
from callboard.cli.session import api
from callboard.cli.table import plain
from callboard.cli.terms import Moment, payload_of
from callboard.errors import CallboardError
from callboard.records.state import State

if TYPE_CHECKING:
    from callboard.client import Client, LogLine, Task

STATES = tuple(str(state) for state in State)


@click.group()
def tasks() -> None:
    """Look at tasks, stop them, run them again."""


@tasks.command("list")
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Several are joined by or.")
@click.option("--queue", help="In this queue.")
@click.option("--name", help="Of this name.")
@click.option("--tag", help="With this tag.")
@click.option("--owner", help="Of this owner.")
@click.option("--since", type=Moment(ago=True), help="Created after: a time, or a duration ago (2h).")
@click.option("--until", type=Moment(ago=True), help="Created before, likewise.")
@click.option("--find", "q", metavar="TEXT", help="With this text in id, name, payload or tags.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@click.option("--cursor", help="Go on where a list ended.")
@output_options()
def list_(
    states: tuple[str, ...],
    queue: str | None,
    name: str | None,
    tag: str | None,
    owner: str | None,
    since: datetime | None,
    until: datetime | None,
    q: str | None,
    limit: int,
    cursor: str | None,
    form: Form,
) -> None:
    """List tasks, newest first."""
    with api() as client:
        page = client.tasks(
            states=states,
            queue=queue,
            name=name,
            tag=tag,
            owner=owner,
            created_after=since,
            created_before=until,
            q=q,
            limit=limit,
            cursor=cursor,
        )
    if form == "json":
        print_json(page.document)
        return
    if form == "ids":
        print_ids(task.id for task in page.items)
    elif page.items:
        from callboard.cli.task_view import print_tasks

        print_tasks(page.items)
    else:
        click.echo("No tasks.", err=True)
    if not page.complete:
        click.echo(
            f"Only the newest {page.scanned or 0:,} tasks were looked at; name a queue or a state.", err=True
        )
    if page.next_cursor and form == "table":
        click.echo(f"There are more: --cursor {page.next_cursor}", err=True)


@tasks.command()
@click.argument("task_id", metavar="ID")
@output_options()
def show(task_id: str, form: Form) -> None:
    """Show one task: payload, attempts, progress, result or error."""
    with api() as client:
        task = client.task(task_id)
    if form == "json":
        print_json(task.document)
    elif form == "ids":
        click.echo(task.id)
    else:
        from callboard.cli.task_view import print_task

        print_task(task)


@tasks.command()
@click.argument("task_id", metavar="ID")
@click.option("--follow", "-f", is_flag=True, help="Go on until the task has ended.")
@click.option("--after", type=click.IntRange(0), default=0, help="Only lines with a number above this.")
@click.option("--json", "as_json", is_flag=True, help="Print the API's JSON, one line of the log a line.")
def logs(task_id: str, follow: bool, after: int, as_json: bool) -> None:
    """Print the log of a task."""
    show = _print_json_line if as_json else _print_line
    with api() as client:
        if not follow:
            _rest(client, task_id, after, show)
            return
        # Connected first, so that no line falls between what is read now and what is told from now on.
        with client.task_events(task_id) as stream:
            after = _rest(client, task_id, after, show)
            if client.task(task_id).ended:
                _rest(client, task_id, after, show)
                return
            for event in stream:
                if event.type != "task.progressed":
                    after = _rest(client, task_id, after, show)
        _rest(client, task_id, after, show)


def _rest(client: Client, task_id: str, after: int, show: Callable[[LogLine], None]) -> int:
    """Print what there is above `after`; the number of the last line."""
    while True:
        page = client.logs(task_id, after)
        for line in page.items:
            show(line)
        if not page.items:
            return after
        after = page.items[-1].seq


def _print_json_line(line: LogLine) -> None:
    print_json_line(line.document)


def _print_line(line: LogLine) -> None:
    level = "" if line.level == "info" else f" {line.level.upper()}"
    click.echo(f"{line.at:%H:%M:%S}.{line.at.microsecond // 1000:03d}{level} {plain(line.message)}")


@tasks.command()
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--terminate", is_flag=True, help="Kill a running body instead of asking it to stop.")
@output_options()
def cancel(task_ids: tuple[str, ...], terminate: bool, form: Form) -> None:
    """Cancel tasks: at once while they wait, by request while they run."""
    _each(task_ids, form, lambda client, task_id: client.cancel(task_id, terminate=terminate))


@tasks.command()
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@output_options()
def retry(task_ids: tuple[str, ...], form: Form) -> None:
    """Queue failed or cancelled tasks again, under their ids."""
    _each(task_ids, form, lambda client, task_id: client.retry(task_id))


@tasks.command()
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Change the payload, key by key.")
@click.option("--payload", "file", metavar="FILE", help="Another payload, from a JSON file (`-`: stdin).")
@output_options()
def resubmit(task_ids: tuple[str, ...], pairs: tuple[str, ...], file: str | None, form: Form) -> None:
    """Submit new tasks like these. Prints the new ids.

    --set follows the rules of `callboard submit`.
    """
    changes = payload_of(pairs, file)

    def again(client: Client, task_id: str) -> Task:
        if not pairs:
            return client.resubmit(task_id, changes if file is not None else None)
        former = {} if file is not None else client.task(task_id).payload
        if not isinstance(former, dict):
            raise click.UsageError(f"The payload of {task_id} is no object; give another with --payload.")
        return client.resubmit(task_id, {**former, **changes})

    _each(task_ids, form, again)


@tasks.command()
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@output_options()
def delete(task_ids: tuple[str, ...], form: Form) -> None:
    """Delete tasks that have ended: records, logs and results."""
    _each(task_ids, form, lambda client, task_id: client.delete(task_id))


def _each(task_ids: tuple[str, ...], form: Form, act: Callable[[Client, str], Task | None]) -> None:
    """Do it to one after another and print what became of each; a refusal does not stop the rest."""
    worst = Exit.DONE
    with api() as client:
        for task_id in task_ids:
            try:
                task = act(client, task_id)
            except CallboardError as error:
                worst = max(worst, exit_of(error))
                complain(f"{task_id}: {error}" if len(task_ids) > 1 else str(error))
                if worst is Exit.UNREACHABLE:
                    break
                continue
            _tell(task_id, task, form)
    if worst:
        sys.exit(worst)


def _tell(task_id: str, task: Task | None, form: Form) -> None:
    document: dict[str, Any] = task.document if task else {"id": task_id, "deleted": True}
    if form == "json":
        print_json_line(document)
    elif form == "ids":
        click.echo(document["id"])
    elif task is None:
        click.echo(f"{task_id}  deleted")
    else:
        asked = task.cancel_requested_at is not None and not task.ended
        click.echo(f"{task.id}  {task.state}" + (", asked to stop" if asked else ""))
