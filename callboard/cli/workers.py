"""`callboard workers`: who is there and what they do."""

from __future__ import annotations

import click

from callboard.cli.output import Form, age, output_options, print_ids, print_json
from callboard.cli.session import api
from callboard.cli.table import Cell, Column, print_table

_COLUMNS = (
    Column("id"),
    Column("queues", cut=True),
    Column("busy", right=True),
    Column("slots", right=True),
    Column("memory", right=True),
    Column("up", right=True),
    Column("version"),
    Column("standing"),
)


@click.group()
def workers() -> None:
    """Look at workers."""


@workers.command("list")
@output_options()
def list_(form: Form) -> None:
    """List the living workers."""
    with api() as client:
        found = client.workers()
    if form == "json":
        print_json({"items": [worker.document for worker in found], "next_cursor": None})
    elif form == "ids":
        print_ids(worker.id for worker in found)
    elif not found:
        click.echo("No workers.", err=True)
    else:
        print_table(
            _COLUMNS,
            (
                (
                    worker.id,
                    ", ".join(worker.queues),
                    str(worker.busy),
                    str(worker.slots),
                    f"{worker.memory_bytes / 1_048_576:.0f} MiB" if worker.memory_bytes else "-",
                    age(worker.since),
                    worker.version,
                    Cell("draining", "yellow") if worker.draining else "working",
                )
                for worker in found
            ),
        )
