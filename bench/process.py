"""Processes that a measurement looks at from outside: a worker, the API."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import callboard
from bench import tasks
from bench.line import Stage

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 60.0


@contextmanager
def service(stage: Stage, module: str, **settings: object) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m MODULE` on the stage's Redis until the block ends; `settings` by their short names."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CALLBOARD_")},
        "PYTHONPATH": str(ROOT),
        "CALLBOARD_REDIS_URL": stage.server.url,
        "CALLBOARD_NAMESPACE": tasks.NAMESPACE,
        "CALLBOARD_APPS": "none",
        "CALLBOARD_OPS_PORT": "0",
        **{f"CALLBOARD_{name}": str(value) for name, value in settings.items()},
    }
    log = stage.folder / f"{module}.log"
    with log.open("ab") as words:
        running = subprocess.Popen(
            [sys.executable, "-m", module], stdout=words, stderr=words, env=environment, cwd=stage.folder
        )
        try:
            yield running
        except Exception as error:
            error.add_note(f"{module} said: " + log.read_text(encoding="utf-8", errors="replace")[-2000:])
            raise
        finally:
            end(running)


@contextmanager
def worker(stage: Stage, queue: str, slots: int = 8) -> Iterator[subprocess.Popen[bytes]]:
    """A worker for one of our queues, on an empty Redis, once it runs tasks."""
    fresh(stage)
    with service(
        stage, "callboard_worker", MODULES="bench.tasks", WORKER_QUEUES=queue, WORKER_SLOTS=slots
    ) as running:
        yield running


def fresh(stage: Stage) -> None:
    """An empty Redis, and this process's submits go to it."""
    callboard.configure(stage.server.url, namespace=tasks.NAMESPACE)
    from callboard.storage import default

    default.connection().client.flushall()


def until(true: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for something, but not for ever."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


def end(running: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL when that is not heeded."""
    if running.poll() is None:
        running.terminate()
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
