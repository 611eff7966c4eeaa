"""The demo's own platform: `callboard up` in a process group and a data folder of its own, and its API."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any

from callboard import clock
from callboard.cli.demo.verdict import Resource
from callboard.client import Client, RequestRefused, Worker
from callboard.errors import CallboardError, Unavailable
from callboard.settings import child_environment, describe

LEASE_SECONDS = 4
"""Shorter than the default 20, so that nobody waits long for a dead worker's tasks."""
SLOTS = 4
QUEUE = "parsing"
TASK = "knowledge.parse_link"

_START_SECONDS = 40
_STOP_SECONDS = 15
_API_LINE = re.compile(r"https?://127\.0\.0\.1:\d+")


class Platform:
    """`callboard up` with the knowledge application alone, on an embedded server in `folder`.

    Entering starts it and waits until it takes tasks; leaving stops all of its processes.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.url = ""
        self.log = folder / "platform.log"
        self._folder = folder
        self._port = port
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._client: Client | None = None

    def __enter__(self) -> Platform:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, payloads: Sequence[dict[str, Any]]) -> list[str]:
        """Submit one parsing task for each payload; answers their ids in order."""
        items = self._api.submit_batch(
            [{"name": TASK, "payload": payload, "tags": ["demo"]} for payload in payloads]
        )
        for item in items:
            if item.id is None:
                raise Unavailable(f"The platform refused a task: {(item.problem or {}).get('detail')}")
        return [item.id for item in items if item.id is not None]

    def tasks(self) -> dict[str, Resource]:
        """All tasks of the demo by id, without payloads, results and attempts."""
        return {task.id: task.document for task in self._api.tasks(queue=QUEUE, limit=200).items}

    def task(self, task_id: str) -> Resource | None:
        """One task, whole; None when the platform does not know it."""
        try:
            return self._api.task(task_id).document
        except RequestRefused as refusal:
            if refusal.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def workers(self) -> dict[str, Worker]:
        """The living workers by id."""
        return {worker.id: worker for worker in self._api.workers()}

    @property
    def _api(self) -> Client:
        assert self._client is not None, "The platform has not started."
        return self._client

    def _start(self) -> None:
        deadline = clock.monotonic() + _START_SECONDS
        command = [sys.executable, "-m", "callboard", "up", "--port", str(self._port)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=self._folder,
            env=child_environment(self._environment()),
            # Ctrl-C is for the demo, which then stops the platform in good order.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="demo-platform")
        self._reader.start()
        while not self._takes_tasks():
            if self._process.poll() is not None:
                raise Unavailable(f"The platform ended at its start.\n{self.last_lines()}")
            if clock.monotonic() > deadline:
                raise Unavailable(f"The platform did not start in {_START_SECONDS} s.\n{self.last_lines()}")
            clock.sleep(0.1)

    def _environment(self) -> dict[str, str | None]:
        """The user's settings are for the user's platform, so none of them reaches this one."""
        theirs: dict[str, str | None] = {}
        for row in describe():
            theirs[row.name] = None
            theirs[f"{row.name}_FILE"] = None
        return {
            **theirs,
            "CALLBOARD_DATA_DIR": str(self._folder / "data"),
            "CALLBOARD_APPS": "knowledge",
            "CALLBOARD_WORKER_LEASE_SECONDS": str(LEASE_SECONDS),
            "CALLBOARD_WORKER_SLOTS": str(SLOTS),
            "PYTHONUNBUFFERED": "1",
        }

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self.log.open("w", encoding="utf-8") as log:
            for line in self._process.stdout:
                log.write(line)
                log.flush()
                address = _API_LINE.search(line)
                if address and "api" in line.lower() and not self.url:
                    self.url = address[0]

    def _takes_tasks(self) -> bool:
        if self._client is None:
            if not self.url:
                return False
            # No key: the demo's API has none, and the user's is not for it.
            self._client = Client(self.url, key="")
        try:
            # The worker publishes its catalog once it is up, and only then is the name known.
            return bool(self.workers()) and any(entry.name == TASK for entry in self._client.catalog())
        except CallboardError:
            return False

    def last_lines(self, count: int = 15) -> str:
        """The end of what the platform printed."""
        if not self.log.is_file():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])

    def close(self) -> None:
        """Stop the platform: in good order, else by force. May be called twice."""
        if self._client is not None:
            self._client.close()
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                # It had its time. Not reaped yet, so the group's number is still its own.
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        if self._reader is not None:
            self._reader.join(5)


def kill(pid: int) -> bool:
    """SIGKILL a process; whether it was seen dead within 5 s."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    deadline = clock.monotonic() + 5
    while clock.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        clock.sleep(0.02)
    return False


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo the way Ctrl-C does, so that nothing it started outlives it."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
