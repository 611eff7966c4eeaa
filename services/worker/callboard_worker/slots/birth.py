"""How a forked process becomes a child: its own session, bound to its worker, parted from its siblings."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from typing import Any

from callboard import clock
from callboard_worker.slots import kernel

_ADOPTION_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What a child needs to know. `modules`: those that are still to be imported."""

    name: str
    worker_pid: int
    modules: list[str]
    adopted: bool


def settle(lifeline: int, settings: Settings, descriptors: list[int]) -> tuple[socket.socket, int]:
    """Become a process of its own that dies with its worker, whatever the body does then."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    kernel.name_process(f"cb-{settings.name}")
    if settings.adopted:
        _await_adoption(settings.worker_pid)
    _hang_on(lifeline)
    kernel.prefer_for_oom()
    connection_descriptor, control, stdout, stderr = descriptors
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (stdout, 1), (stderr, 2)):
        os.dup2(source, target)
        os.close(source)
    for descriptor in (connection_descriptor, control):
        os.set_inheritable(descriptor, False)
    os.set_blocking(control, False)
    return socket.socket(fileno=connection_descriptor), control


def _await_adoption(worker_pid: int) -> None:
    # The process between is dying; until it is gone, the kernel would send the signal for its death.
    deadline = clock.monotonic() + _ADOPTION_SECONDS
    while os.getppid() != worker_pid and clock.monotonic() < deadline:
        clock.sleep(0.0002)
    if not kernel.die_with_parent(worker_pid):
        os._exit(1)


def _hang_on(lifeline: int) -> None:
    """Die when the worker's end of the lifeline closes."""
    if kernel.kill_on_hangup(lifeline) is not None:
        os.close(lifeline)
        kernel.outlive_parent()
    else:
        threading.Thread(target=_watch_lifeline, args=(lifeline,), name="lifeline", daemon=True).start()


def _watch_lifeline(lifeline: int) -> None:
    os.set_blocking(lifeline, True)
    with contextlib.suppress(OSError):
        os.read(lifeline, 1)
    kernel.kill_group(os.getpgrp())


def database_engines() -> list[Any]:
    """SQLAlchemy engines that the task modules made when they were imported."""
    module = sys.modules.get("sqlalchemy.engine")
    kind = getattr(module, "Engine", None)
    if not isinstance(kind, type):
        return []
    return [thing for thing in gc.get_objects() if kind in type(thing).__mro__]


def part_from_siblings(engines: list[Any]) -> None:
    """Undo what would be shared by the fork: connections, and the state of numpy's random numbers.

    (The standard library reseeds its own; redis-py's pools see the fork by themselves.)
    """
    for engine in engines:
        engine.dispose(close=False)
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
