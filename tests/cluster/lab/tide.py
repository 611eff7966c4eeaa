"""A steady load: as many naps in hand at all times, whatever the workers do."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from callboard.client import Client
from tests.cluster.lab.release import submit_naps

_LOOK_SECONDS = 0.2


class Tide:
    """Within `with`, tops up the queue `naps` to `level` tasks of so many seconds; `ids` are all of them."""

    def __init__(self, client: Client, level: int, seconds: float) -> None:
        self._client, self._level, self._seconds = client, level, seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: Exception | None = None
        self.ids: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._failure and error is None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._over.wait(_LOOK_SECONDS):
                missing = self._level - in_hand(self._client)
                if missing > 0:
                    self.ids += submit_naps(self._client, missing, self._seconds)
        except Exception as failure:
            self._failure = failure


def in_hand(client: Client) -> int:
    """Naps that wait or run."""
    depth = client.queue("naps").depth
    return sum(depth.get(state, 0) for state in ("pending", "queued", "running"))  # type: ignore[call-overload]
