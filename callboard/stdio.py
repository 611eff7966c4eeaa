"""What a body prints becomes lines of its task's log; what others print goes where it always went."""

from __future__ import annotations

import io
import sys
import threading
from contextvars import ContextVar
from typing import Any, TextIO, cast

#: A line that does not end is cut after so many characters.
_LONGEST_BEGUN = 8 * 1024
LEVELS = {"stdout": "info", "stderr": "warning"}


class Printer:
    """The unfinished lines of one body, and where finished ones go. `echo`: they are printed as well."""

    __slots__ = ("_partial", "_sink", "echo")

    def __init__(self, sink: Any, echo: bool = False) -> None:
        self._sink = sink
        self.echo = echo
        self._partial: dict[str, str] = {}

    def write(self, level: str, text: str) -> None:
        if not text.endswith("\n") or level in self._partial:
            text = self._partial.pop(level, "") + text
            *complete, rest = text.split("\n")
            if len(rest) > _LONGEST_BEGUN:
                complete.append(rest)
            elif rest:
                self._partial[level] = rest
        else:
            complete = text[:-1].split("\n")
        for line in complete:
            self._sink.log(level, line)

    def flush(self) -> None:
        """Write the lines that were begun and never ended."""
        if not self._partial:
            return
        partial, self._partial = self._partial, {}
        for level, text in partial.items():
            self._sink.log(level, text)


_printer: ContextVar[Printer | None] = ContextVar("callboard_printer", default=None)


class printing:
    """Give what this thread or coroutine prints to `sink.log`, while the streams are captured.

    `echo`: and print it too.
    """

    # A class, because a generator costs three times as much and this is entered for every task.
    __slots__ = ("_printer", "_token")

    def __init__(self, sink: Any, *, echo: bool = False) -> None:
        self._printer = Printer(sink, echo)

    def __enter__(self) -> None:
        self._token = _printer.set(self._printer)

    def __exit__(self, *_: object) -> None:
        _printer.reset(self._token)
        self._printer.flush()


def detach() -> None:
    """Here and now nobody prints for a task any more (in a process that a body forked)."""
    _printer.set(None)


class TaskStream(io.TextIOBase):
    """Stands in for sys.stdout or sys.stderr. All but `write` is the original's."""

    def __init__(self, original: TextIO, level: str) -> None:
        self.original = original
        self._level = level

    def write(self, text: str) -> int:
        printer = _printer.get()
        if printer is None:
            return self.original.write(text)
        printer.write(self._level, text)
        if printer.echo:
            self.original.write(text)
        return len(text)

    def flush(self) -> None:
        self.original.flush()

    def fileno(self) -> int:
        return self.original.fileno()

    def isatty(self) -> bool:
        return self.original.isatty()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Never: the stream belongs to the process."""

    def __getattr__(self, name: str) -> Any:
        # buffer, encoding, errors, reconfigure, …: raw writes go to the file descriptor, past the task's log.
        return getattr(self.original, name)


_lock = threading.Lock()
_captures: list[None] = []


def capture() -> None:
    """Put the stand-ins in place. Calls are counted: as many `release` take them away."""
    with _lock:
        _captures.append(None)
        for name, level in LEVELS.items():
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, TaskStream):
                setattr(sys, name, cast(TextIO, TaskStream(stream, level)))


def release() -> None:
    """Undo one `capture`; the last one puts the originals back unless somebody else replaced ours."""
    with _lock:
        if _captures:
            _captures.pop()
        if not _captures:
            for name in LEVELS:
                stream = getattr(sys, name)
                if isinstance(stream, TaskStream):
                    setattr(sys, name, stream.original)
