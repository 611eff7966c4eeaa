"""`callboard queues`: how deep they are, and stopping, starting and emptying them."""

from __future__ import annotations

import click

from callboard.cli.output import Form, duration_ms, number, output_options, print_ids, print_json
from callboard.cli.session import api
from callboard.cli.table import Cell, Column, print_table
from callboard.client import Scaling
from callboard.records.state import State

STATES = tuple(str(state) for state in State)
_COLUMNS = (
    Column("queue", cut=True),
    *(Column(state, right=True) for state in STATES),
    Column("oldest", right=True),
    Column("demand", right=True),
    Column("standing"),
)


@click.group()
def queues() -> None:
    """Look at queues, pause, resume and empty them."""


@queues.command("list")
@output_options()
def list_(form: Form) -> None:
    """List queues with their tasks by state."""
    with api() as client:
        found = client.queues()
    if form == "json":
        print_json({"items": [queue.document for queue in found], "next_cursor": None})
    elif form == "ids":
        print_ids(queue.name for queue in found)
    elif not found:
        click.echo("No queues.", err=True)
    else:
        clustered = any(queue.scaling for queue in found)
        print_table(
            (*_COLUMNS, *((Column("pods"),) if clustered else ())),
            (
                (
                    queue.name,
                    *(number(queue.depth.get(State(state), 0)) for state in STATES),
                    duration_ms(_ms(queue.oldest_ready_age_seconds)),
                    number(queue.demand_slots),
                    Cell("paused", "yellow") if queue.paused else "open",
                    *((_pods(queue.scaling),) if clustered else ()),
                )
                for queue in found
            ),
        )


@queues.command()
@click.argument("queue")
@click.option("--json", "as_json", is_flag=True, help="Print the API's JSON.")
def pause(queue: str, as_json: bool) -> None:
    """Start nothing more from QUEUE; what runs ends, submits are accepted."""
    with api() as client:
        answer = client.pause(queue)
    print_json(answer) if as_json else click.echo(f"{queue}  paused")


@queues.command()
@click.argument("queue")
@click.option("--json", "as_json", is_flag=True, help="Print the API's JSON.")
def resume(queue: str, as_json: bool) -> None:
    """Undo `pause`."""
    with api() as client:
        answer = client.resume(queue)
    print_json(answer) if as_json else click.echo(f"{queue}  open")


@queues.command()
@click.argument("queue")
@click.option(
    "--state",
    type=click.Choice([state for state in STATES if state != "running"]),
    required=True,
    help="Which tasks; running ones are cancelled, not purged.",
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the API's JSON.")
def purge(queue: str, state: str, yes: bool, as_json: bool) -> None:
    """Drop every task of QUEUE that stands in a state now: records, logs and results."""
    with api() as client:
        if not yes:
            count = client.queue(queue).depth.get(State(state), 0)
            click.confirm(f"Drop {count:,} {state} tasks of {queue}?", abort=True, err=True)
        answer = client.purge(queue, state)
    if as_json:
        print_json(answer)
    else:
        purged = answer.get("purged")
        click.echo(f"{queue}  {number(purged)} {state} tasks dropped")


def _pods(scaling: Scaling | None) -> str:
    """Such as `2/5 of 8, max`: ready, wanted, the most that may be, and what limits them."""
    if scaling is None:
        return ""
    most = "" if scaling.max is None else f" of {number(scaling.max)}"
    limit = f", {scaling.limited_by}" if scaling.limited_by else ""
    return f"{number(scaling.ready)}/{number(scaling.desired)}{most}{limit}"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
