"""`callboard events`: what happened, and what happens now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from callboard import clock
from callboard.cli.output import print_json_line
from callboard.cli.session import api
from callboard.cli.table import one_line, plain

if TYPE_CHECKING:
    from callboard.client import Event, EventStream

#: Without --follow: a stream that is silent for so long has told what is kept.
_SILENCE_SECONDS = 1.0
#: Without --follow, on a busy platform: an event so much younger than the command is not history.
_NEWS_MS = 5_000


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Show what happens from now on, until Ctrl-C.")
@click.option("--queue", help="Of this queue.")
@click.option("--name", help="Of tasks of this name.")
@click.option("--tag", help="Of tasks with this tag.")
@click.option("--type", "kind", metavar="TYPE", help="Of this type: task.failed.")
@click.option("--task", "task_id", metavar="ID", help="Of this task, until it has ended.")
@click.option("--after", metavar="CURSOR", help="Go on after this event (the `cursor` that --json prints).")
@click.option("--json", "as_json", is_flag=True, help="Print the API's JSON, one event a line.")
def events(
    follow: bool,
    queue: str | None,
    name: str | None,
    tag: str | None,
    kind: str | None,
    task_id: str | None,
    after: str | None,
    as_json: bool,
) -> None:
    """Print events: those that are kept, or with --follow those to come.

    An interrupted connection is made anew, and nothing is missed or told twice that is still kept.
    """
    if task_id is not None and (queue or name or tag or kind):
        raise click.UsageError("--task shows all events of one task; the other filters do not go with it.")
    from callboard.client import OLDEST

    with api() as client:
        if task_id is not None:
            stream = client.task_events(task_id, after=after)
        elif follow:
            stream = client.events(queue=queue, name=name, tag=tag, type=kind, after=after)
        else:
            stream = client.events(
                queue=queue,
                name=name,
                tag=tag,
                type=kind,
                after=after or OLDEST,
                idle_seconds=_SILENCE_SECONDS,
            )
        _print(stream, as_json, ends=not follow and task_id is None)


def _print(stream: EventStream, as_json: bool, *, ends: bool) -> None:
    began = clock.now_ms()
    with stream:
        for event in stream:
            at = int(event.at.timestamp() * 1000) if event.at is not None else 0
            if ends and at > began + _NEWS_MS:
                return
            if as_json:
                print_json_line(event.document)
            elif event.type == "stream.reset":
                click.echo("Older events are gone.", err=True)
            else:
                click.echo(_line(event))


def _line(event: Event) -> str:
    at = f"{event.at:%H:%M:%S}.{event.at.microsecond // 1000:03d}" if event.at is not None else "-"
    told = event.progress
    parts = [at, f"{event.type:<16}", event.id or event.queue or "-", event.name or ""]
    if event.attempt and event.attempt > 1:
        parts.append(f"attempt {event.attempt}")
    if event.reason:
        parts.append(f"({event.reason})")
    if told is not None:
        parts.append(f"{told.percent:.0f}%" if told.percent is not None else f"{told.current or 0:g}")
        parts.append(told.message or "")
    return one_line(plain(" ".join(part for part in parts if part)))
