"""One thread that waits for all file descriptors of a worker's children: output, exits, large sends."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import threading
from collections import deque
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Poller:
    """Calls back when a descriptor is ready. Descriptors are added and removed from any thread.

    A callback must not block. It belongs to the poller's thread, as does everything given to `soon`.
    """

    def __init__(self, name: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._wanted: deque[Callable[[], None]] = deque()
        self._wake_receiver, self._wake_sender = os.pipe()
        os.set_blocking(self._wake_receiver, False)
        os.set_blocking(self._wake_sender, False)
        self._selector.register(self._wake_receiver, selectors.EVENT_READ, self._woken)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def watch(self, descriptor: int, callback: Callable[[], None], *, writing: bool = False) -> None:
        """Call `callback` whenever the descriptor is readable (or writable, or hung up)."""
        event = selectors.EVENT_WRITE if writing else selectors.EVENT_READ
        self.soon(lambda: self._register(descriptor, event, callback))

    def unwatch(self, descriptor: int, then: Callable[[], None] | None = None) -> None:
        """Stop that; `then` (which may close the descriptor) follows when it holds.

        From a callback it holds at once, so that the same descriptor cannot call back again before. `then`
        has its turn all the same: somebody may have asked to watch this descriptor, and waits for his.
        """
        if threading.current_thread() is self._thread:
            self._unregister(descriptor, None)
        self.soon(lambda: self._unregister(descriptor, then))

    def soon(self, call: Callable[[], None]) -> None:
        """Make a call in the poller's thread."""
        self._wanted.append(call)
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_sender, b"x")

    def close(self) -> None:
        """End the thread once everything that was asked for is done. Idempotent."""
        if self._closed:
            return
        self.soon(self._stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

    def _stop(self) -> None:
        self._closed = True

    def _register(self, descriptor: int, event: int, callback: Callable[[], None]) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(descriptor)
        self._selector.register(descriptor, event, callback)

    def _unregister(self, descriptor: int, then: Callable[[], None] | None) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)
        if then is not None:
            then()

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_receiver, 4096)

    def _make(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            logger.exception("A callback for a child process failed.")

    def _run(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select():
                # An earlier callback of this round may have unregistered it, and its number may be another's.
                if self._selector.get_map().get(key.fd) is key:
                    self._make(key.data)
            while self._wanted:
                self._make(self._wanted.popleft())
        self._selector.close()
        os.close(self._wake_receiver)
        os.close(self._wake_sender)
