"""The keeper: renews this process's leases and presence, from a thread that never runs user code."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from callboard import clock
from callboard.broker import turn
from callboard.catalog import presence
from callboard.catalog.presence import Presence
from callboard.errors import CallboardError
from callboard.storage.connection import Connection

logger = logging.getLogger(__name__)

#: After a failure, tries come this often: the lease is running out.
_HURRY_SECONDS = 0.5


class OnWord(Protocol):
    """Called for a held task that may not go on: `word` is cancel, terminate, lost, or stale.

    `stale`: no renewal has succeeded for a whole lease, so another worker may run the task by now.
    """

    def __call__(self, queue: str, local: str, token: str, word: str) -> None: ...


class Keeper:
    """Holds leases of (queue, local id, token) until they are dropped. Survives outages of Redis.

    `lease_ms(queue)`: how long a renewal lasts; renewals come every quarter of the shortest. `ticked`:
    monotonic time of the last round, for liveness.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        lease_ms: Callable[[str], int],
        shown: Callable[[], Presence],
        on_word: OnWord,
    ) -> None:
        self._connection = connection
        self._lease_ms = lease_ms
        self._shown = shown
        self._on_word = on_word
        self._held: dict[tuple[str, str, str], float] = {}
        self._stopping = False
        self._called = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._shortest = 20_000
        self.ticked = clock.monotonic()

    @property
    def worker(self) -> str:
        """The worker's id."""
        return self._shown().id

    def hold(self, queue: str, local: str, token: str) -> None:
        """Renew this lease from now on."""
        self._held[queue, local, token] = clock.monotonic()

    def drop(self, queue: str, local: str, token: str) -> None:
        """Stop renewing it."""
        self._held.pop((queue, local, token), None)

    def start(self, shortest_lease_ms: int = 20_000) -> None:
        """Show the presence (if Redis answers) and begin. `shortest_lease_ms` sets the pace."""
        self._shortest = shortest_lease_ms
        self._presence()
        self.ticked = clock.monotonic()
        self._thread.start()

    def call(self) -> None:
        """Have the next round now: what is shown has changed."""
        self._called.set()

    def stop(self) -> None:
        """End the thread and take the presence away."""
        self._stopping = True
        self._called.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        try:
            self._connection.run(presence.withdraw(self._connection.keys, self.worker))
        except CallboardError:
            logger.info("The presence could not be withdrawn; it ends by itself.")

    def _run(self) -> None:
        pace = self._shortest / 4000
        wait = pace
        while True:
            self._called.wait(wait)
            self._called.clear()
            if self._stopping:
                return
            try:
                # The presence first: it must not outlive the leases, or a dead worker looks alive to the
                # rescuer.
                good = self._presence()
                good = self._renew() and good
            except Exception:
                # Without this thread every lease of the process runs out while its bodies go on.
                logger.exception("A round of renewals failed; the next one follows.")
                good = False
            self.ticked = clock.monotonic()
            wait = pace if good else min(pace, _HURRY_SECONDS)

    def _presence(self) -> bool:
        shown = self._shown()
        keys = self._connection.keys
        try:
            self._connection.run(presence.show(keys, shown, self._shortest))
        except CallboardError as error:
            logger.debug("Presence was not renewed: %s", error)
            return False
        return True

    def _renew(self) -> bool:
        queues: dict[str, list[tuple[str, str]]] = {}
        for queue, local, token in list(self._held):
            queues.setdefault(queue, []).append((local, token))
        good = True
        for queue, held in queues.items():
            try:
                words = self._connection.run(
                    turn.renew(self._connection.keys, queue, held, self._lease_ms(queue))
                )
            except CallboardError as error:
                logger.warning("Leases of queue %s were not renewed: %s", queue, error)
                good = False
                self._find_stale(queue, held)
                continue
            now = clock.monotonic()
            for (local, token), word in zip(held, words, strict=True):
                if (queue, local, token) not in self._held:
                    continue  # dropped while the renewal was under way
                if word == "lost":
                    self._on_word(queue, local, token, word)
                    continue
                self._held[queue, local, token] = now
                if word != "ok":
                    self._on_word(queue, local, token, word)
        return good

    def _find_stale(self, queue: str, held: list[tuple[str, str]]) -> None:
        expired = clock.monotonic() - self._lease_ms(queue) / 1000
        for local, token in held:
            if self._held.get((queue, local, token), expired) < expired:
                self._on_word(queue, local, token, "stale")
