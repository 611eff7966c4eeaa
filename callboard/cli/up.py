"""`callboard up`: everything on this machine, in one command."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from callboard.cli.exits import Exit
from callboard.cli.group import complain

if TYPE_CHECKING:
    from callboard.cli.supervisor import Supervisor


@click.command(epilog="Example: callboard up tasks.py --reload")
@click.argument("modules", nargs=-1, metavar="[MODULE]...")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="The API's port (CALLBOARD_API_PORT, else 8000); taken: the next free one; 0: any.",
)
@click.option("--slots", type=click.IntRange(1), help="Tasks that a worker runs at once.")
@click.option("--split", is_flag=True, help="A worker process for each queue, instead of one for all.")
@click.option("--reload", is_flag=True, help="Restart the workers when their code changes.")
@click.option("--no-api", "without", flag_value="api", multiple=True, help="Without the API.")
@click.option("--no-worker", "without", flag_value="worker", multiple=True, help="Without workers.")
@click.option(
    "--no-scheduler", "without", flag_value="scheduler", multiple=True, help="Without the scheduler."
)
def up(
    modules: tuple[str, ...],
    port: int | None,
    slots: int | None,
    split: bool,
    reload: bool,
    without: tuple[str, ...],
) -> None:
    """Start the API, a worker and the scheduler, and keep them running until Ctrl-C.

    MODULE is a file (tasks.py) or a dotted name (acme.tasks); without one the shipped applications run, or
    what CALLBOARD_MODULES and CALLBOARD_APPS name. Without CALLBOARD_REDIS_URL an embedded server keeps the
    data in CALLBOARD_DATA_DIR (.callboard).

    The line `callboard is ready: URL` on standard output tells when tasks are taken; the services' own lines
    go to standard error. The first Ctrl-C stops in order and lets running tasks end, a second one at once.
    """
    from callboard.cli.preflight import PreflightFailed
    from callboard.cli.supervisor import Plan, ServiceFailed, Supervisor

    if reload:
        from callboard.cli.reloader import require_watcher

        require_watcher()
    plan = Plan(modules=modules, port=port, slots=slots, split=split, reload=reload, without=without)
    supervisor = Supervisor(plan)
    with _signals(supervisor):
        try:
            ready = supervisor.start()
        except PreflightFailed as error:
            complain(str(error))
            raise SystemExit(Exit.USAGE) from None
        except ServiceFailed as error:
            complain(str(error))
            told = error.exit_code in (Exit.USAGE, Exit.REFUSED)
            raise SystemExit(error.exit_code if told else Exit.UNREACHABLE) from None
        try:
            if ready:
                click.echo(
                    f"callboard is ready: {supervisor.url}" if supervisor.url else "callboard is ready"
                )
                supervisor.wait()
        finally:
            supervisor.stop()


@contextmanager
def _signals(supervisor: Supervisor) -> Iterator[None]:
    """The first signal asks to stop, every further one hurries."""
    asked = False

    def handle(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            supervisor.hurry()
            return
        asked = True
        supervisor.ask_to_stop()

    numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)  # nohup: it is to outlive its terminal
    former = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
