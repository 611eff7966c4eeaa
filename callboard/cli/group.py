"""The tree of commands, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from callboard import __version__
from callboard.cli.exits import Exit, exit_of
from callboard.errors import CallboardError

#: Commands in the order of the help; imported when they are used, so that each start pays for one.
COMMANDS = {
    "up": "callboard.cli.up:up",
    "demo": "callboard.cli.demo:demo",
    "serve": "callboard.cli.serve:serve",
    "run": "callboard.cli.run:run",
    "submit": "callboard.cli.submit:submit",
    "tasks": "callboard.cli.tasks:tasks",
    "events": "callboard.cli.events:events",
    "queues": "callboard.cli.queues:queues",
    "workers": "callboard.cli.workers:workers",
    "doctor": "callboard.cli.doctor:doctor",
    "completion": "callboard.cli.completion:completion",
}


_WHERE = " Is it running (`callboard up`)? CALLBOARD_URL says where it is."


class Root(click.Group):
    """The group `callboard`: commands loaded when used, errors told in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        home = COMMANDS.get(cmd_name)
        if home is None:
            return None
        module, _, name = home.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Before click sees it: a reader that goes away (`head`) is no failure of ours, which 1 would say."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The interpreter's last flush must not complain of it again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(Exit.CLOSED_PIPE) from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """As click's, with our exit codes; never a traceback (`CALLBOARD_LOG_LEVEL=debug` shows it)."""
        try:
            code = super().main(
                args, prog_name, complete_var, standalone_mode=False, windows_expand_args=False, **extra
            )
        except click.exceptions.Exit as end:
            code = end.exit_code
        except click.UsageError as error:
            error.show()
            code = Exit.USAGE
        except click.ClickException as error:
            complain(error.format_message())
            code = Exit.USAGE
        except (click.Abort, KeyboardInterrupt):
            code = Exit.INTERRUPTED
        except CallboardError as error:
            hint = _WHERE if error.code == "unreachable" else ""
            complain(f"{error}{hint}")
            code = exit_of(error)
        except Exception as error:
            code = Exit.BUG
            _confess(error)
        sys.exit(int(code) if isinstance(code, int) else Exit.DONE)


def complain(message: str) -> None:
    """An error, on standard error."""
    click.echo(f"callboard: {message}", err=True)


def _confess(error: Exception) -> None:
    from callboard.settings import load

    try:
        debugging = load().log_level == "debug"
    except CallboardError:
        debugging = False
    if debugging:
        import traceback

        click.echo("".join(traceback.format_exception(error)).rstrip(), err=True)
    told = " ".join(str(error).split()) or "no message"
    hint = "" if debugging else " CALLBOARD_LOG_LEVEL=debug shows where."
    complain(f"this is a bug in Callboard, please report it: {type(error).__name__}: {told}.{hint}")


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="callboard %(version)s")
def callboard() -> None:
    """Background tasks that a team can post, watch and scale.

    `callboard up tasks.py` starts everything on this machine. The operating commands speak HTTP to the API
    at CALLBOARD_URL (by default http://127.0.0.1:8000), with the key in CALLBOARD_KEY.

    Exit codes: 0 done, 1 a task failed, 2 usage, 3 unreachable, 4 refused or not found.
    """
