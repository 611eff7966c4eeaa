"""Tasks that the tests mount into a stock worker, at /app: hungry ones, slow ones, untidy ones."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from callboard import progress, task

_MIB = 1024 * 1024


def _hoard(mebibytes: int) -> int:
    held = []
    for number in range(mebibytes):
        held.append(b"\x01" * _MIB)
        if number % 16 == 0:
            time.sleep(0.01)
    return len(held)


@task(queue="bodies", name="bodies.hoard", memory_limit="64MiB", retries=0)
def hoard(mebibytes: int) -> int:
    """Hold so much memory; may have 64 MiB."""
    return _hoard(mebibytes)


@task(queue="bodies", name="bodies.unlimited", retries=0)
def unlimited(mebibytes: int) -> int:
    """Hold so much memory; only the container's limit holds."""
    return _hoard(mebibytes)


@task(queue="bodies", name="bodies.steady")
def steady(seconds: float) -> dict[str, Any]:
    """Work on for so long, saying so; then tell who it was."""
    progress(0, 1, "started")
    time.sleep(seconds)
    return {"uid": os.getuid(), "pid": os.getpid()}


@task(queue="bodies", name="bodies.write")
def write(path: str) -> str:
    """Try to write a file; what came of it."""
    try:
        Path(path).write_text("x")
    except OSError as error:
        return type(error).__name__ + ": " + str(error.strerror)
    return "written"
