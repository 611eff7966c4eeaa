"""A look at users' modules before anything is started: do they import, and which queues do they declare?

It happens in a process of its own, so that nothing which an import starts stays in the supervisor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from callboard.errors import CallboardError, InvalidDeclaration
from callboard.settings import load

if TYPE_CHECKING:
    from callboard.catalog.contract import Contract

#: The built-in tasks' queue, which every worker serves.
PLATFORM_QUEUE = "callboard"


class PreflightFailed(InvalidDeclaration):
    """The modules cannot be loaded. What was wrong has been printed already."""

    code = "module-failed"


@dataclass(frozen=True, slots=True)
class Inventory:
    """What modules and applications declare. `folders`: where their code is."""

    queues: tuple[str, ...]
    tasks: tuple[str, ...]
    folders: tuple[str, ...]


class Preflight:
    """A look that goes on while its caller does something else; `result` waits for it.

    environment: a worker's; what that worker would find is what is told.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def result(self) -> Inventory:
        """Raises PreflightFailed, with the traceback of the user's own code as its message."""
        with self._process as process:
            try:
                printed, complaint = process.communicate()
            except BaseException:
                process.kill()
                raise
        if process.returncode == 0:
            # What a module prints while it is imported comes before.
            told = json.loads(printed.splitlines()[-1])
            return Inventory(tuple(told["queues"]), tuple(told["tasks"]), tuple(told["folders"]))
        raise PreflightFailed(
            complaint.strip() or f"The modules ended the process that imported them ({process.returncode})."
        )


def _take_stock() -> Inventory:
    from callboard.catalog import loading
    from callboard.catalog.app import discover
    from callboard.catalog.queue import declared_queues

    settings = load()
    # The worker's own view, Dramatiq actors included. Asked for by name: services stand above the library.
    import_module("callboard_worker.prelude")
    worker = import_module("callboard_worker.definition")
    apps = discover(settings.apps)
    for app in apps:
        app.load_tasks()
    modules = loading.load(settings.modules)
    known = worker.definitions(worker.dramatiq.get_broker())
    contracts: list[Contract] = worker.contracts(known.values())
    queues = dict.fromkeys((*declared_queues(), *(contract.queue_name for contract in contracts)))
    queues.pop(PLATFORM_QUEUE, None)
    files = [module.__file__ for module in modules] + [
        sys.modules[name].__file__ for app in apps for name in app.task_modules
    ]
    folders = dict.fromkeys(str(Path(file).resolve().parent) for file in files if file)
    return Inventory(tuple(queues), tuple(sorted(known)), tuple(folders))


def main() -> None:
    """Print the inventory as the last line of standard output, or the fault on standard error."""
    try:
        found = _take_stock()
    except CallboardError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    told = {"queues": found.queues, "tasks": found.tasks, "folders": found.folders}
    sys.stdout.write(f"\n{json.dumps(told)}\n")
    sys.stdout.flush()
    # Threads that an import started must not keep this process.
    os._exit(0)


if __name__ == "__main__":
    main()
