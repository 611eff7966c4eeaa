"""The demo's own platform: a supervisor in a data folder of its own, and the API that it serves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any

from callboard import clock
from callboard.cli.demo.verdict import Resource
from callboard.cli.supervisor import Plan, Supervisor
from callboard.client import Client, RequestRefused, Worker
from callboard.errors import Unavailable
from callboard.settings import describe

LEASE_SECONDS = 4
"""Shorter than the default 20, so that nobody waits long for a dead worker's tasks."""
SLOTS = 4
QUEUE = "parsing"
TASK = "knowledge.parse_link"

_START_SECONDS = 40.0
_DRAIN_SECONDS = 5


class Platform:
    """The knowledge application alone, on an embedded server, with everything that it keeps in `folder`.

    Entering starts it and waits until it takes tasks; leaving stops all of its processes. What they
    print goes into `log`. `port`: the API's; taken: the next.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.log = folder / "platform.log"
        self._output = self.log.open("w", encoding="utf-8")
        self._supervisor = Supervisor(
            Plan(apps=["knowledge"], port=port, slots=SLOTS, environment=_environment(folder)),
            output=self._output,
        )
        self._client: Client | None = None

    def __enter__(self) -> Platform:
        try:
            self._supervisor.start(_START_SECONDS)
        except BaseException as error:
            self._output.close()
            if isinstance(error, Exception):
                raise Unavailable(f"The platform did not start: {error}\n{self.last_lines()}") from error
            raise
        # No key: the demo's API has none, and the user's is not for it.
        self._client = Client(self.url, key="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.close()
        if error is not None:
            self._supervisor.hurry()
        self._supervisor.stop()
        self._output.close()

    @property
    def url(self) -> str:
        """The API's address."""
        return self._supervisor.url

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
        """All tasks of the demo by id, without payloads and results."""
        page = self._api.tasks(queue=QUEUE, include=["attempts"], limit=200)
        return {str(task["id"]): task for task in page.document["items"]}

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

    def last_lines(self, count: int = 15) -> str:
        """The end of what the platform printed."""
        if not self.log.is_file():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def _environment(folder: Path) -> dict[str, str | None]:
    """The user's settings are for the user's platform, so none of them reaches this one."""
    theirs: dict[str, str | None] = {}
    for row in describe():
        theirs[row.name] = None
        theirs[f"{row.name}_FILE"] = None
    return {
        **theirs,
        "CALLBOARD_DATA_DIR": str(folder / "data"),
        # Any free one: the well-known ones are for the user's platform, which may run beside this.
        "CALLBOARD_OPS_PORT": "0",
        "CALLBOARD_WORKER_LEASE_SECONDS": str(LEASE_SECONDS),
        "CALLBOARD_WORKER_DRAIN_SECONDS": str(_DRAIN_SECONDS),
    }


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
