"""The entry of the command `callboard`."""

from __future__ import annotations

import sys

from callboard.errors import MissingExtra


def main() -> None:
    """Run the command line; ends the process with one of `exits.Exit`."""
    try:
        import click
        import rich
    except ImportError as error:
        sys.stderr.write(f"callboard: {MissingExtra('cli', error.name or '')}\n")
        raise SystemExit(2) from None
    del click, rich

    from callboard.cli.group import callboard

    callboard.main(prog_name="callboard")
