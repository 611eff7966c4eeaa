"""Workers of a Dramatiq program as processes: ours, and Dramatiq's CLI with its own."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import dramatiq
import pytest

import callboard
from callboard.storage.connection import Connection
from tests.support.board import Board
from tests.support.waiting import wait_until
from tests.support.worker_process import ServiceProcess

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAM = HERE / "program.py"


class Running(Protocol):
    """Either of them."""

    @property
    def alive(self) -> bool: ...

    def kill(self) -> None:
        """SIGKILL for all of its processes."""

    def term(self) -> None:
        """SIGTERM."""

    def wait(self, timeout: float = 60.0) -> int:
        """Its exit status."""

    def close(self) -> None:
        """End it, whatever it does."""


class CliProcess:
    """`dramatiq program`, in a process group of its own."""

    def __init__(
        self, program: Path, log: Path, environment: dict[str, str], *, processes: int = 2, threads: int = 4
    ) -> None:
        self.log: IO[bytes] = log.open("wb")
        options = ["--processes", str(processes), "--threads", str(threads)]
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "dramatiq", program.stem, *options],
            stdout=self.log,
            stderr=self.log,
            env=environment,
            cwd=program.parent,
            start_new_session=True,
        )

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def kill(self) -> None:
        os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def term(self) -> None:
        self.popen.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = 60.0) -> int:
        return self.popen.wait(timeout)

    def close(self) -> None:
        if self.alive:
            self.kill()
        self.log.close()


class Hosts:
    """Starts them for one namespace, and ends them."""

    def __init__(
        self, folder: Path, url: str, namespace: str, *, program: Path = PROGRAM, lease_seconds: float = 2.0
    ) -> None:
        self.program = program
        self.folder, self.url, self.namespace = folder, url, namespace
        self.lease_seconds = lease_seconds
        self.connection = Connection(url, namespace=namespace)
        self.board = Board(self.connection)
        self._running: list[Running] = []

    def start(self, kind: str, **options: Any) -> Running:
        """`serve` (ours, process slots) or `cli` (Dramatiq's); ready when it returns."""
        present = set(self.board.workers())
        log = self.folder / f"{kind}-{len(self._running)}.log"
        if kind == "serve":
            service = ServiceProcess(
                "callboard_worker",
                log,
                self.url,
                self.namespace,
                MODULES=self.program,
                WORKER_SLOTS=options.get("slots", 4),
                WORKER_LEASE_SECONDS=self.lease_seconds,
            )
            self._running.append(service)
            service.ready()
            return service
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "CALLBOARD_REDIS_URL": self.url,
            "CALLBOARD_NAMESPACE": self.namespace,
            "CALLBOARD_WORKER_LEASE_SECONDS": str(self.lease_seconds),
            "dramatiq_restart_delay": "200",
        }
        process = CliProcess(self.program, log, environment, **options)
        self._running.append(process)
        wanted = options.get("processes", 2)
        wait_until(
            lambda: len(set(self.board.workers()) - present) == wanted, 60, "the CLI's processes to show up"
        )
        return process

    def alive(self) -> Running | None:
        """The one that was started first and runs still."""
        return next((process for process in self._running if process.alive), None)

    def close(self) -> None:
        for process in self._running:
            process.close()
        self.connection.close()


@contextmanager
def imported(hosts: Hosts) -> Iterator[Any]:
    """The program, imported here, its broker on the hosts' namespace. To be asked for before they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROGRAM_TRACES", str(hosts.folder / "traces"))
        patch.setenv("PROGRAM_REDIS_URL", hosts.url)
        patch.syspath_prepend(str(HERE))
        former = dramatiq.broker.global_broker
        callboard.configure(hosts.url, namespace=hosts.namespace)
        module: Any = importlib.import_module(PROGRAM.stem)
        yield module
        module.broker.close()
        del sys.modules[PROGRAM.stem]
        dramatiq.broker.global_broker = former
