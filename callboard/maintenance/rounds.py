"""A thread that goes round and round: it survives outages of Redis, and says when one begins and ends."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from callboard import clock
from callboard.errors import StoreUnavailable

LONGEST_BACKOFF_SECONDS = 5.0
_FAULT_SECONDS = 1.0

logger = logging.getLogger(__name__)


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row: 0.2 at first, 5 at most."""
    return min(LONGEST_BACKOFF_SECONDS, 0.1 * 2.0 ** min(failures, 16))


class Rounds:
    """Calls `step` again and again in a thread of its own; `step` returns the seconds to wait.

    It never ends by an error: StoreUnavailable is waited out with back-off, anything else is logged and the
    next round follows. `title` begins the log lines; `last` is called in the thread when it has been stopped.
    """

    def __init__(
        self, title: str, step: Callable[[], float], *, last: Callable[[], None] | None = None
    ) -> None:
        self._title = title
        self._step = step
        self._last = last
        self._outage = 0
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._ticked = clock.monotonic()
        self.stopping = False
        #: Rounds so far, failed ones included.
        self.ticks = 0

    def start(self) -> None:
        """Start the thread."""
        name = f"callboard-{self._title.lower().replace(' ', '-')}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._ticked = clock.monotonic()
        self._thread.start()

    def wake(self) -> None:
        """Begin the next round now."""
        self._wake.set()

    def beat(self) -> None:
        """Say from within a long round that it goes on."""
        self._ticked = clock.monotonic()

    def ask_to_stop(self) -> None:
        """Let the round that runs be the last; does not wait."""
        self.stopping = True
        self._wake.set()

    def stop(self, timeout: float = 5.0) -> None:
        """Stop; returns after `timeout` seconds at the latest.

        A thread that waits for a Redis that hangs is left behind; it ends with its wait.
        """
        self.ask_to_stop()
        if self._thread is not None:
            self._thread.join(timeout)

    def alive(self, within_seconds: float = 60.0) -> bool:
        """Whether the thread has made a round lately; says nothing about Redis."""
        running = self._thread is not None and self._thread.is_alive()
        return running and clock.monotonic() - self._ticked < within_seconds

    @property
    def reachable(self) -> bool:
        """Whether the last round found Redis."""
        return self.ticks > 0 and self._outage == 0

    def _run(self) -> None:
        while not self.stopping:
            try:
                pause = self._step()
            except StoreUnavailable as error:
                pause = self._out(error)
            except Exception:
                logger.exception("%s: a round failed; the next one follows.", self._title)
                pause = _FAULT_SECONDS
            else:
                if self._outage:
                    logger.info("%s goes on: Redis answers again.", self._title)
                    self._outage = 0
            self.ticks += 1
            self._ticked = clock.monotonic()
            self._wake.wait(pause)
            self._wake.clear()
        if self._last is not None:
            self._last()

    def _out(self, error: StoreUnavailable) -> float:
        if self._outage == 0:
            logger.warning("%s pauses: %s", self._title, error)
        self._outage += 1
        return backoff(self._outage) * random.uniform(0.5, 1.0)
