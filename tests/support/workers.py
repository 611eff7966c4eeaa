"""A worker process with the tasks of `worker_bodies`, and the board that it serves."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from callboard.storage.connection import Connection
from tests.support import worker_bodies
from tests.support.board import Board
from tests.support.worker_process import ServiceProcess

BODIES = Path(worker_bodies.__file__)


@contextmanager
def working(url: str, folder: Path, **settings: object) -> Iterator[tuple[ServiceProcess, Board]]:
    """Start a worker in a namespace of its own, ready to work; it is killed at the end if it still runs."""
    namespace = f"t{uuid.uuid4().hex[:12]}"
    connection = Connection(url, namespace=namespace)
    chosen = {"MODULES": BODIES, "WORKER_SLOTS": 4, "WORKER_GRACE_SECONDS": 0.5, **settings}
    process = ServiceProcess("callboard_worker", folder / f"{namespace}.log", url, namespace, **chosen)
    try:
        yield process.ready(), Board(connection)
    finally:
        process.close()
        connection.close()
