"""The real API as a process of its own, and a worker played by the test: what a client needs to be tested."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgpack

from callboard.catalog.contract import Contract, contract_of
from callboard.catalog.presence import Presence, show
from callboard.catalog.published import publish
from callboard.storage.connection import Connection
from tests.support.ports import free_port
from tests.support.tasks import turn
from tests.support.waiting import wait_until

KEY = "cb_0123456789abcdef"
QUEUE = "reports"


def build(month: str, rows: int = 1) -> None:
    """Build a report."""


def file_away(month: str) -> None:
    """File a report."""


def contracts() -> list[Contract]:
    return [contract_of(function, queue=QUEUE) for function in (build, file_away)]


@contextmanager
def served_api(
    redis_url: str, namespace: str, log: Path, *, port: int | None = None, key: str | None = KEY
) -> Iterator[str]:
    """`callboard serve api` on a free port until the block ends; its URL."""
    port = port or free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CALLBOARD_")},
        "CALLBOARD_REDIS_URL": redis_url,
        "CALLBOARD_NAMESPACE": namespace,
        "CALLBOARD_API_PORT": str(port),
        "CALLBOARD_OPS_PORT": "0",
    }
    if key is not None:
        environment["CALLBOARD_ADMIN_KEY"] = key
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "callboard", "serve", "api"], env=environment, stdout=out, stderr=out
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _ready(url) or process.poll() is not None, 60, "the API's start")
        assert process.poll() is None, log.read_text()
        yield url
    except BaseException:
        print(log.read_text())  # pytest shows it beside the failure
        raise
    finally:
        process.terminate()
        process.wait(60)


def _ready(url: str) -> bool:
    try:
        # Plain HTTP: without `verify` each question would read all certificates.
        return httpx.get(f"{url}/readyz", trust_env=False, verify=False).is_success
    except httpx.HTTPError:
        return False


class PlayedWorker:
    """A worker whose every step the test decides. It serves QUEUE and knows `build` and `file_away`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        keys = connection.keys
        connection.run(publish(keys, contracts(), [QUEUE], "played"))
        presence = Presence("played", "here", 1, "1.2.3", 0, [QUEUE], 4, 1, memory_bytes=2**20)
        # It does not renew it, and a module's tests may take longer than a presence lasts.
        connection.run(show(keys, presence, ttl_ms=3_600_000))
        self.claims: dict[str, str] = {}

    def claim(self, count: int = 1) -> list[str]:
        """Take queued tasks; their ids."""
        taken = turn(self.connection, QUEUE, worker="played", want=count)
        self.claims |= dict(taken)
        return [f"{QUEUE}_{local}" for local, _ in taken]

    def note(self, task_id: str, *lines: str, progress: bytes = b"", first: int = 1) -> None:
        """Write log lines and progress of a running task."""
        from callboard.records.layout import log_line
        from callboard.storage.operation import ScriptCall
        from callboard.storage.scripts import script

        local = task_id.rpartition("_")[2]
        packed = [log_line(1_800_000_000_000, 1, "info", line) for line in lines]
        fields = [local, self.claims[local], progress, first, first, packed]
        prefix = self.connection.keys.queue(QUEUE).prefix
        body = msgpack.packb(fields, use_bin_type=False)
        [answer] = self.connection.execute(ScriptCall(script("callboard.broker", "note"), prefix, (body,)))
        assert answer == b"ok"

    def complete(self, task_id: str, result: bytes = b'{"rows": 3}') -> None:
        """End a running task well."""
        self._end(task_id, "completed", result, [])

    def fail(self, task_id: str, message: str = "No such month.") -> None:
        """End a running task for good."""
        error = (
            b'{"type": "ValueError", "message": "' + message.encode() + b'", '
            b'"traceback": "Traceback (most recent call last):\\n  ...\\nValueError", "retryable": false}'
        )
        self._end(task_id, "failed", "failed", "permanent", error, [])

    def _end(self, task_id: str, kind: str, *rest: object) -> None:
        local = task_id.rpartition("_")[2]
        fields: Sequence[object] = [kind, local, self.claims.pop(local), b"", 0, 1, [], *rest]
        turn(self.connection, QUEUE, msgpack.packb(fields, use_bin_type=False), worker="played")
