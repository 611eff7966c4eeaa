"""The worker's hold on its forkserver: starts it, asks it for children, and starts another when it dies.

Why not multiprocessing's: docs/decisions/0009-a-forkserver-of-our-own.md.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from callboard import clock
from callboard.catalog.loading import ModuleFailed
from callboard.errors import CallboardError
from callboard_worker.slots import frame, kernel

logger = logging.getLogger(__name__)

_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from callboard_worker.slots.nursery import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)
_RESTART_PAUSE_SECONDS = 1.0
_FORK_SECONDS = 15.0
_LEAVE_SECONDS = 3.0
_lifeline_ends: set[int] = set()


def _let_go() -> None:
    # A fork of this process, such as a thread slot's multiprocessing pool, must not hold the line after us.
    for descriptor in _lifeline_ends:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _lifeline_ends.clear()


os.register_at_fork(after_in_child=_let_go)


class ForkFailed(CallboardError):
    """No child could be forked now; the forkserver was restarted or cannot be."""

    code = "fork-failed"


class Forkserver:
    """Starts lazily; `fork` restarts it when it is gone. Children live on: they are not its children."""

    def __init__(self, modules: Sequence[str], *, import_seconds: float = 120.0) -> None:
        self._modules = list(modules)
        # Not imported in the forkserver, because that would leave threads there: each child does it.
        self._left_to_children: list[str] = []
        self._import_seconds = import_seconds
        self._adopts = kernel.adopt_orphans()
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        # Held open by this process alone. The kernel kills whoever hangs on it when we are gone.
        self._lifeline, self._lifeline_end = os.pipe()
        _lifeline_ends.add(self._lifeline_end)
        self._started_at = -_RESTART_PAUSE_SECONDS
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    @property
    def adopts(self) -> bool:
        """Whether children are this process's own, whose exit status it gets."""
        return self._adopts

    def start(self) -> None:
        """Start it and import the modules. Raises ModuleFailed with the user's traceback, ForkFailed."""
        with self._lock:
            if self.pid is not None or self._closed:
                return
            self._stop()
            names = self._launch([] if self._left_to_children else self._modules)
            if not names:
                return
            # A fork copies one thread; what the others held stays locked for ever.
            logger.warning(
                "Importing %s starts threads: %s. Children cannot be forked from that, so each imports the "
                "modules itself, which makes its start slower. (Start threads in on_child_start; for BLAS "
                "set OPENBLAS_NUM_THREADS=1.)",
                ", ".join(self._modules),
                ", ".join(names),
            )
            self._left_to_children = self._modules
            self._stop()
            self._launch([])

    def fork(self, name: str, descriptors: Sequence[int]) -> int:
        """A new child's process id. It gets the descriptors: connection, control, stdout, stderr.

        Raises ModuleFailed, ForkFailed.
        """
        settings = {
            "name": name,
            "worker_pid": os.getpid(),
            "modules": self._left_to_children,
            "adopted": self._adopts,
        }
        with self._lock:
            if self._closed:
                raise ForkFailed("The slots are closed.")
            if self.pid is None:
                clock.sleep(self._started_at + _RESTART_PAUSE_SECONDS - clock.monotonic())
                if self._started_at > 0:
                    logger.warning("The forkserver is gone; starting another.")
                self.start()
                settings["modules"] = self._left_to_children
            connection = self._connection
            assert connection is not None
            try:
                connection.settimeout(_FORK_SECONDS)
                socket.send_fds(connection, [frame.pack(frame.FORK, settings)], list(descriptors))
                kind, told = self._answer(connection)
            except OSError as error:
                self._stop()
                raise ForkFailed(f"The forkserver does not answer ({error}).") from error
        if kind != frame.FORKED:
            raise ForkFailed(str(told))
        return int(told)

    def close(self) -> None:
        """End it, and with it whatever child is left. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._stop()
            os.close(self._lifeline)
            _lifeline_ends.discard(self._lifeline_end)
            os.close(self._lifeline_end)

    def _launch(self, modules: list[str]) -> list[str]:
        """Start it; the names of threads that its imports left running."""
        ours, theirs = socket.socketpair()
        try:
            command = [sys.executable, *_interpreter_flags(), "-c", _BOOT, json.dumps(sys.path)]
            command += [str(theirs.fileno()), str(self._lifeline)]
            self._process = subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(), self._lifeline),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise ForkFailed(f"The forkserver cannot be started: {error}") from error
        finally:
            theirs.close()
        self._connection = ours
        self._started_at = clock.monotonic()
        settings: dict[str, Any] = {
            "modules": modules,
            "adopted": self._adopts,
            "log_level": logging.getLogger().level,
        }
        try:
            ours.settimeout(self._import_seconds)
            ours.sendall(frame.pack(frame.PREPARE, settings))
            kind, told = self._answer(ours)
        except OSError as error:
            self._stop()
            what = f"importing {', '.join(modules)} " if modules else ""
            if isinstance(error, TimeoutError):
                raise ModuleFailed(
                    f"The forkserver is not done {what}in {self._import_seconds:g} s."
                ) from error
            raise ForkFailed(f"The forkserver ended {what}at its start: {error}") from error
        if kind == frame.BROKEN:
            self._stop()
            raise ModuleFailed(str(told))
        return list(told)

    def _answer(self, connection: socket.socket) -> tuple[int, Any]:
        reader = frame.Reader()
        while data := connection.recv(65536):
            for kind, told in reader.feed(data):
                return kind, told
        process = self._process
        code = None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=1)
        raise ConnectionResetError(f"it {kernel.describe_exit(code)}")

    def _stop(self) -> None:
        connection, self._connection = self._connection, None
        process, self._process = self._process, None
        if connection is not None:
            connection.close()
        if process is not None:
            try:
                process.wait(timeout=_LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _interpreter_flags() -> list[str]:
    """-W, -X and the like, as this interpreter was started with; what multiprocessing uses."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags
