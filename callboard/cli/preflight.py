"""A look at users' modules before anything is started: do they import, and which queues do they declare?

It happens in a process of its own, so that nothing which an import starts stays in the supervisor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from callboard.errors import CallboardError, InvalidDeclaration
from callboard.settings import load

#: The built-in tasks' queue, which every worker serves.
PLATFORM_QUEUE = "callboard"
_POLL_SECONDS = 0.2


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

    def result(self, given_up: threading.Event) -> Inventory:
        """Raises PreflightFailed, with the traceback of the user's own code as its message.

        `given_up` ends the look, for an import may hang.
        """
        with self._process as process:
            printed, complaint = self._words(given_up)
        if process.returncode == 0:
            # What a module prints while it is imported comes before.
            told = json.loads(printed.splitlines()[-1])
            return Inventory(tuple(told["queues"]), tuple(told["tasks"]), tuple(told["folders"]))
        raise PreflightFailed(
            complaint.strip() or f"The modules ended the process that imported them ({process.returncode})."
        )

    def _words(self, given_up: threading.Event) -> tuple[str, str]:
        while True:
            try:
                return self._process.communicate(timeout=_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if given_up.is_set():
                    self._process.kill()


def _take_stock() -> Inventory:
    from callboard.cli.known import load_known

    settings = load()
    known = load_known(settings.modules, settings.apps)
    queues = tuple(name for name in known.queues if name != PLATFORM_QUEUE)
    return Inventory(queues, tuple(sorted(known.contracts)), known.folders)


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
