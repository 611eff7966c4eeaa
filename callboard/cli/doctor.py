"""`callboard doctor`: the one operating command that speaks to Redis itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from callboard.cli.exits import Exit
from callboard.cli.output import print_json
from callboard.cli.table import Column, print_table
from callboard.errors import CallboardError, InvalidSetting

if TYPE_CHECKING:
    from callboard.doctor import Fault
    from callboard.settings import Settings
    from callboard.storage.connection import Connection

_COLUMNS = (Column("subject"), Column("queue", cut=True), Column("fault"), Column("meaning", cut=True))
#: Faults of one kind that are listed for people; the rest is counted.
_SHOWN = 20


@click.command()
@click.option("--repair", is_flag=True, help="Mend what is wrong, by the rules in docs/cli.md.")
@click.option("--json", "as_json", is_flag=True, help="Print every fault as JSON.")
def doctor(repair: bool, as_json: bool) -> None:
    """Check that every task is where its record says, and nothing is left over; --repair mends it.

    Speaks to Redis at CALLBOARD_REDIS_URL, or to the embedded server's data in CALLBOARD_DATA_DIR, whether
    `callboard up` runs or not. Works in small steps, beside the work. Run it after restoring a backup.

    Exit code 0 when all is sound or mended, 1 when faults are left.
    """
    from callboard.doctor import FAULTS, Checkup
    from callboard.settings import load

    with _connected(load()) as connection:
        checkup = Checkup(connection, mend=repair)
        faults = list(checkup.faults())
    if as_json:
        print_json(
            {
                "tasks": checkup.tasks,
                "queues": len(checkup.queues),
                "faults": [fault.to_json() for fault in faults],
            }
        )
    else:
        _show(faults)
        found = f"{_count(len(faults), 'fault')} {'mended' if repair else 'found'}"
        seen = f"{_count(checkup.tasks, 'task')} in {_count(len(checkup.queues), 'queue')}"
        click.echo(f"{seen}: {found if faults else 'all sound'}.")
        if faults and not repair:
            click.echo("--repair mends them.", err=True)
    if not repair and any(not FAULTS[fault.code].passing for fault in faults):
        raise SystemExit(Exit.TASK_FAILED)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _show(faults: list[Fault]) -> None:
    from callboard.doctor import FAULTS

    counts = Counter((fault.queue, fault.code) for fault in faults)
    shown: Counter[tuple[str, str]] = Counter()
    rows = []
    for fault in sorted(faults, key=lambda fault: (fault.queue, fault.code, fault.subject)):
        kind = (fault.queue, fault.code)
        shown[kind] += 1
        if shown[kind] <= _SHOWN:
            rows.append((fault.subject, fault.queue, fault.code, FAULTS[fault.code].meaning))
        elif shown[kind] == _SHOWN + 1:
            rows.append((f"and {counts[kind] - _SHOWN:,} more", fault.queue, fault.code, ""))
    if rows:
        print_table(_COLUMNS, rows)


@contextmanager
def _connected(settings: Settings) -> Iterator[Connection]:
    """The Redis that is named, the embedded server that runs, or one started for this.

    Raises StoreUnavailable, StoreUnfit, and InvalidSetting when there is no data anywhere.
    """
    from callboard.storage.embedded import EmbeddedServer, address_in

    if settings.redis_url is not None:
        with _fit(settings, settings.redis_url) as connection:
            yield connection
        return
    if not settings.data_dir.is_dir():
        raise InvalidSetting(
            f"There is nothing to check: CALLBOARD_REDIS_URL is not set, and there is no {settings.data_dir}."
        )
    address = address_in(settings.data_dir)
    if address is not None and _answers(address):
        with _fit(settings, address) as connection:
            yield connection
        return
    with EmbeddedServer(settings.data_dir) as server, _fit(settings, server.url) as connection:
        yield connection


@contextmanager
def _fit(settings: Settings, url: str) -> Iterator[Connection]:
    from callboard.storage import fitness
    from callboard.storage.connection import Connection

    connection = Connection(url, namespace=settings.namespace, events_keep=settings.events_keep)
    try:
        for warning in connection.run(fitness.check(connection.keys)):
            click.echo(warning, err=True)
        yield connection
    finally:
        connection.close()


def _answers(url: str) -> bool:
    from callboard.storage.connection import Connection
    from callboard.storage.operation import Command

    connection = Connection(url)
    try:
        connection.execute(Command("PING"))
    except CallboardError:
        return False
    else:
        return True
    finally:
        connection.close()
