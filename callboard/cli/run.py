"""`callboard run`: one attempt of a task in this process, in the foreground, for a debugger."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import click

from callboard.cli.exits import Exit
from callboard.cli.table import plain
from callboard.cli.terms import payload_of

if TYPE_CHECKING:
    from callboard.cli.known import Body


@click.command(epilog="Example: callboard run build month=2026-11 --module tasks.py")
@click.argument("name")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--module",
    "-m",
    "modules",
    multiple=True,
    help="Where the task is: a file or a dotted name; may be given several times. Default: CALLBOARD_MODULES "
    "and the applications.",
)
@click.option("--json", "file", metavar="FILE", help="Take the payload from a JSON file (`-`: stdin).")
@click.option("--attempt", type=click.IntRange(1), default=1, show_default=True, help="Say it is this one.")
@click.option("--pdb", is_flag=True, help="On a failure, open the debugger where it happened.")
def run(
    name: str, pairs: tuple[str, ...], modules: tuple[str, ...], file: str | None, attempt: int, pdb: bool
) -> None:
    """Run the task NAME here and now: no Redis, no worker, no retry, no limits.

    Values are read as `callboard submit` reads them. Progress and log go to standard error, the result to
    standard output as JSON. Exit code 1 when the body raises, with its traceback.
    """
    payload = payload_of(pairs, file)
    raise SystemExit(perform(find(name, modules), payload, attempt=attempt, debug=pdb))


def find(name: str, modules: tuple[str, ...]) -> Body:
    """The body of that name from `modules`, or from the settings' modules and applications.

    Raises ModuleFailed, UnknownTask, and Invalid where it might help to name a module.
    """
    from callboard.cli.known import load_known
    from callboard.errors import Invalid, UnknownTask
    from callboard.settings import load

    settings = load()
    if modules:
        return load_known(modules, ()).body(name)
    try:
        return load_known(settings.modules, settings.apps).body(name)
    except UnknownTask as error:
        raise Invalid(f"{error} A task of your own is found with --module FILE.") from None


def perform(body: Body, payload: dict[str, Any], *, attempt: int = 1, debug: bool = False) -> Exit:
    """Run one attempt and print what comes of it. Raises InvalidPayload before the body starts."""
    import asyncio

    from callboard.context import Cancelled, CurrentTask, Discard, Retry, enter
    from callboard.records import new_id

    terms = body.contract.terms()
    current = CurrentTask(
        id=new_id(terms.queue),
        name=terms.name,
        queue=terms.queue,
        attempt=attempt,
        max_attempts=terms.max_attempts,
        payload=payload,
    )
    call = body.bind(payload)
    with enter(current, _Screen()), _logging():
        try:
            value = asyncio.run(call()) if body.is_async else call()
        except Retry as asked:
            when = "" if asked.after_ms is None else f" after {asked.after_ms / 1000:g} s"
            return _ended(f"asks to be run again{when}: {asked.message}")
        except Discard as reason:
            return _ended(f"gives up for good: {reason}")
        except Cancelled:
            return _ended("ended as cancelled")
        except (Exception, SystemExit) as error:
            return _failed(error, debug)
    return _completed(value)


def _completed(value: Any) -> Exit:
    from callboard.broker.result import BadResult, encode_result

    try:
        kept = json.loads(encode_result(value))
    except BadResult as error:
        return _ended(f"fails for good: {error}")
    click.echo(json.dumps(kept, ensure_ascii=False, indent=2))
    return Exit.DONE


def _failed(error: BaseException, debug: bool) -> Exit:
    from callboard.catalog.loading import users_traceback

    click.echo(users_traceback(error), err=True)
    if debug:
        import pdb

        pdb.post_mortem(error.__traceback__)
    return Exit.TASK_FAILED


def _ended(how: str) -> Exit:
    click.echo(f"The task {plain(how)}", err=True)
    return Exit.TASK_FAILED


class _logging:
    """Log lines of this process on standard error while the body runs."""

    def __enter__(self) -> None:
        from callboard.logging import configure
        from callboard.settings import load

        settings = load()
        configure(settings.log_format, settings.log_level)
        # The body's own lines are shown through logging above; the sink need not copy them.
        logging.getLogger("callboard.task").setLevel(logging.DEBUG)

    def __exit__(self, *_: object) -> None:
        logging.shutdown()


class _Screen:
    """The sink of a body at the terminal."""

    def progress(self, blob: bytes) -> None:
        told = json.loads(blob)
        total = f"/{told['total']:g}" if told["total"] is not None else ""
        click.echo(f"progress {told['current']:g}{total} {plain(told['message'])}".rstrip(), err=True)

    def log(self, level: str, text: str) -> None:
        click.echo(f"{level}: {plain(text)}", err=True)
