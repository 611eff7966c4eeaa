"""`callboard serve`: one service in the foreground, in place of this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import NoReturn

import click

from callboard.errors import MissingExtra

#: What each service needs beyond a plain install: the extra, and a module that only it brings.
EXTRAS = {
    "api": ("api", ("starlette", "uvicorn", "jsonschema")),
    "worker": ("worker", ()),
    "scheduler": ("scheduler", ("apscheduler",)),
}


def service_command(service: str) -> list[str]:
    """How a service is started. Raises MissingExtra, which names what a plain install lacks."""
    extra, needed = EXTRAS[service]
    for module in needed:
        if find_spec(module) is None:
            raise MissingExtra(extra, module)
    return [sys.executable, "-m", f"callboard_{service}"]


def _become(service: str, changes: Mapping[str, object]) -> NoReturn:
    from callboard.settings import child_environment, load

    environment = child_environment(
        {name: str(value) for name, value in changes.items() if value is not None and value != ""}
    )
    load(environment)  # a bad option is told here, in the words of the settings
    command = service_command(service)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, environment)


@click.group()
def serve() -> None:
    """Run one service in the foreground, as a container does.

    Options set the settings of the same name for this run; all others come from the environment.
    """


_ops_port = click.option(
    "--ops-port", type=click.IntRange(0, 65535), help="CALLBOARD_OPS_PORT: probes and metrics; 0: a free one."
)


@serve.command()
@click.option("--host", help="CALLBOARD_API_HOST: the address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="CALLBOARD_API_PORT: 0 takes a free one.")
@_ops_port
def api(host: str | None, port: int | None, ops_port: int | None) -> None:
    """Serve the HTTP API."""
    _become("api", {"CALLBOARD_API_HOST": host, "CALLBOARD_API_PORT": port, "CALLBOARD_OPS_PORT": ops_port})


@serve.command()
@click.option("--queues", help="CALLBOARD_WORKER_QUEUES: names separated by commas, in order of precedence.")
@click.option("--slots", type=click.IntRange(1), help="CALLBOARD_WORKER_SLOTS: tasks at once.")
@click.option("--modules", help="CALLBOARD_MODULES: files or dotted names, separated by commas.")
@click.option("--drain", type=float, help="CALLBOARD_WORKER_DRAIN_SECONDS: patience after SIGTERM.")
@_ops_port
def worker(
    queues: str | None, slots: int | None, modules: str | None, drain: float | None, ops_port: int | None
) -> None:
    """Run tasks."""
    _become(
        "worker",
        {
            "CALLBOARD_WORKER_QUEUES": queues,
            "CALLBOARD_WORKER_SLOTS": slots,
            "CALLBOARD_MODULES": modules,
            "CALLBOARD_WORKER_DRAIN_SECONDS": drain,
            "CALLBOARD_OPS_PORT": ops_port,
        },
    )


@serve.command()
@_ops_port
def scheduler(ops_port: int | None) -> None:
    """Submit tasks on time, and keep the queues in order."""
    _become("scheduler", {"CALLBOARD_OPS_PORT": ops_port})
