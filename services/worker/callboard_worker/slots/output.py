"""What a child writes to its file descriptors 1 and 2 past Python's print: C code, programs, crashes."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Protocol

from callboard.stdio import LEVELS
from callboard_worker.slots.lines import LineSplitter
from callboard_worker.slots.poller import Poller

_READ_BYTES = 64 * 1024
# A grandchild may write for ever: one visit must end all the same.
_READS_PER_VISIT = 16
_TAIL_BYTES = 8 * 1024


class _Stream:
    __slots__ = ("descriptor", "level", "open", "splitter")

    def __init__(self, descriptor: int, level: str) -> None:
        self.descriptor = descriptor
        self.level = level
        self.splitter = LineSplitter()
        self.open = True


class Taker(Protocol):
    """Whoever the lines belong to at the moment."""

    @property
    def full(self) -> bool:
        """Whether further lines need only be counted."""

    def log(self, level: str, text: str) -> None: ...

    def drop(self, count: int) -> None:
        """So many lines were not even looked at."""


class Output:
    """Two pipes, and `owner()`, who gets the lines.

    They are read by the poller as they come, and once more by whoever reports an outcome, so that a
    body's last lines precede it.
    """

    def __init__(self, poller: Poller, stdout: int, stderr: int, owner: Callable[[], Taker]) -> None:
        self._poller = poller
        self._owner = owner
        self._lock = threading.Lock()
        self._tail = b""
        self._streams = (_Stream(stdout, LEVELS["stdout"]), _Stream(stderr, LEVELS["stderr"]))
        for stream in self._streams:
            os.set_blocking(stream.descriptor, False)
            poller.watch(stream.descriptor, self._ready)

    def settle(self) -> None:
        """Read what is there, and take begun lines for whole ones: a body has ended."""
        with self._lock:
            for stream in self._streams:
                self._read(stream)
                self._flush(stream)

    def tail(self) -> str:
        """The last 8 KiB from stderr since `forget`: what a crash had to say."""
        return self._tail.decode("utf-8", "replace").strip()

    def forget(self) -> None:
        """A new body starts."""
        self._tail = b""

    def close(self) -> None:
        """Read the rest and close; later writes of grandchildren get SIGPIPE."""
        with self._lock:
            for stream in self._streams:
                self._read(stream)
                self._flush(stream)
                self._shut(stream)

    def _ready(self) -> None:
        with self._lock:
            for stream in self._streams:
                self._read(stream)

    def _read(self, stream: _Stream) -> None:
        for _ in range(_READS_PER_VISIT):
            if not stream.open:
                return
            try:
                data = os.read(stream.descriptor, _READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._shut(stream)
                return
            if stream.level == LEVELS["stderr"]:
                self._tail = (self._tail + data)[-_TAIL_BYTES:]
            owner = self._owner()
            if owner.full:
                owner.drop(stream.splitter.skip(data))
            else:
                for line in stream.splitter.feed(data):
                    owner.log(stream.level, line)

    def _flush(self, stream: _Stream) -> None:
        for line in stream.splitter.flush():
            self._owner().log(stream.level, line)

    def _shut(self, stream: _Stream) -> None:
        if stream.open:
            stream.open = False
            descriptor = stream.descriptor
            self._poller.unwatch(descriptor, lambda: _close(descriptor))


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)
