"""`callboard demo`: the main task on real input, with a worker killed in the middle."""

from __future__ import annotations

import click


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="The API's; taken: the next.",
)
@click.option("--keep", is_flag=True, help="Stay until Ctrl-C, to look around.")
def demo(port: int, keep: bool) -> None:
    """Parse a small web site's pages on a platform of the demo's own, and kill its worker in the middle.

    Needs nothing but this installation: the site is on loopback, the data in a temporary folder.
    Exits 0 when every task ended as it should, else 1.
    """
    from callboard.cli.demo.performance import perform

    raise SystemExit(perform(port=port, keep=keep))
