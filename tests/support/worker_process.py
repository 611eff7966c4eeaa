"""Workers and schedulers as processes, which a test may kill."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from tests.support import chaos_bodies
from tests.support.ledger import VARIABLE
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
BODIES = Path(chaos_bodies.__file__)


class ServiceProcess:
    """One `python -m MODULE` with its settings; its words go to `log`.

    `settings`: by their short names, WORKER_SLOTS="8".
    """

    def __init__(self, module: str, log: Path, url: str, namespace: str, **settings: object) -> None:
        self.log = log
        self._file: IO[bytes] = log.open("wb")
        environment = {
            **os.environ,
            # Modules of tests are loaded by their path, and import one another by name.
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "CALLBOARD_REDIS_URL": url,
            "CALLBOARD_NAMESPACE": namespace,
            "CALLBOARD_APPS": "none",
            "CALLBOARD_OPS_PORT": "0",
            **{
                name if name == VARIABLE else f"CALLBOARD_{name}": str(value)
                for name, value in settings.items()
            },
        }
        self.popen = subprocess.Popen(
            [sys.executable, "-m", module],
            stdout=self._file,
            stderr=self._file,
            env=environment,
            cwd=log.parent,
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    @property
    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def id(self) -> str:
        """The id that it gave itself. It may say so after it is ready."""
        told = re.compile(r"(?:Worker|Scheduler) (\S+) (?:serves|keeps) ")
        found = wait_until(lambda: told.search(self.said), description="its id")
        assert found is not None
        return found.group(1)

    def get(self, path: str) -> int:
        """The status of one of its probes."""
        found = re.search(r"Probes and metrics on (http://\S+)", self.said)
        if found is None:
            return 0
        try:
            with urllib.request.urlopen(found.group(1) + path, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except (OSError, http.client.HTTPException):
            return 0

    def ready(self, timeout: float = 60.0) -> ServiceProcess:
        """Wait until it is ready to work."""
        wait_until(
            lambda: not self.alive or self.get("/readyz") == 200, timeout, f"readiness of {self.log.name}"
        )
        assert self.alive, self.said
        return self

    def kill(self) -> None:
        """SIGKILL, as the kernel's memory killer sends it."""
        self.popen.kill()
        self.popen.wait()

    def term(self) -> None:
        """SIGTERM; does not wait."""
        self.popen.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = 60.0) -> int:
        """Its exit status."""
        return self.popen.wait(timeout)

    def close(self) -> None:
        """End it, whatever it does."""
        if self.alive:
            self.kill()
        self._file.close()


def children_of(pid: int) -> set[int]:
    """Every process below `pid`."""
    below: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (parent := _parent(int(folder.name))) is not None:
            below.setdefault(parent, []).append(int(folder.name))
    found: set[int] = set()
    fresh = [pid]
    while fresh:
        fresh = [child for one in fresh for child in below.get(one, [])]
        found.update(fresh)
    return found


def lives(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def _parent(pid: int) -> int | None:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return int(status.rpartition(")")[2].split()[1])
