"""The worker's side of one child process: its pipes, its life and its death."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from math import inf

from callboard import clock
from callboard_worker.slots import frame, kernel
from callboard_worker.slots.child import STOP_CODES, STOP_RECORD
from callboard_worker.slots.forkserver import Forkserver
from callboard_worker.slots.lines import LogBudget
from callboard_worker.slots.output import Output, Taker
from callboard_worker.slots.poller import Poller
from callboard_worker.slots.slot import Why

logger = logging.getLogger(__name__)

SEND_SECONDS = 10.0
"""A child that has not read its task by then hangs."""
_SOCKET_BYTES = 512 * 1024
_CODES = {why: code for code, why in STOP_CODES.items()}


class _Outside:
    """Takes what a child writes while it runs no task."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._budget = LogBudget()

    @property
    def full(self) -> bool:
        return self._budget.spent

    def log(self, level: str, text: str) -> None:
        if (line := self._budget.admit(text)) is not None:
            logger.log(logging.WARNING if level == "warning" else logging.INFO, "%s: %s", self._name, line)

    def drop(self, count: int) -> None:
        """Nobody asks."""


class ChildHandle:
    """One child. Its frames are read by one thread; everything else may be called from any.

    owner: who gets the lines that it writes now; None while it runs no task.
    moved: called when `send_deadline` has changed.
    """

    def __init__(
        self,
        name: str,
        poller: Poller,
        forkserver: Forkserver,
        *,
        owner: Callable[[], Taker | None],
        moved: Callable[[float], None],
    ) -> None:
        """Fork it. Raises ModuleFailed, ForkFailed."""
        self.name = name
        self.tasks = 0
        self.started_at = clock.monotonic()
        self.send_deadline = inf
        self.leave_deadline = inf
        self.killed_for: str | None = None
        self.memory_used: int | None = None
        self.exited = threading.Event()
        self.exit_code: int | None = None
        self._poller = poller
        self._moved = moved
        self._life = threading.Lock()
        self._exit_lock = threading.Lock()
        self._sending = threading.Lock()
        self._unsent = b""
        self._closed = False
        self._on_exit: Callable[[], None] | None = None
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            self._connection, connection = socket.socketpair()
            ours.callback(self._connection.close)
            theirs.callback(connection.close)
            for end in (self._connection, connection):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
            control, self._control = _pipe(receiver=theirs, sender=ours)
            stdout, out = _pipe(receiver=ours, sender=theirs)
            stderr, err = _pipe(receiver=ours, sender=theirs)
            os.set_blocking(self._control, False)
            self.pid = forkserver.fork(name, [connection.fileno(), control, out, err])
            ours.pop_all()
        outside = _Outside(name)
        self.output = Output(poller, stdout, stderr, lambda: owner() or outside)
        self._pidfd = kernel.pidfd_open(self.pid)
        if self._pidfd is not None:
            poller.watch(self._pidfd, self._reap)

    def batches(self) -> Iterator[list[frame.Frame]]:
        """Frames as they come, those that came together in one list; ends when the child has ended."""
        reader = frame.Reader()
        while data := frame.receive(self._connection):
            try:
                yield list(reader.feed(data))
            except frame.BadFrame as error:
                logger.error("%s speaks no frames (%s); it is killed.", self.name, error)
                self.kill("garbled")
                return

    def send(self, packed: bytes) -> bool:
        """Send without blocking: what does not fit goes as the child reads, until `send_deadline`.

        False if the child has died, so that it cannot have got any of it.
        """
        with self._sending:
            sent = 0
            if not self._unsent:
                try:
                    sent = self._connection.send(packed, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    pass
                except OSError:
                    return False  # Whoever reads its frames learns of that too.
            if sent < len(packed):
                self._unsent += packed[sent:]
                self.send_deadline = clock.monotonic() + SEND_SECONDS
                self._poller.watch(self._connection.fileno(), self._send_more, writing=True)
        if self.send_deadline != inf:
            self._moved(self.send_deadline)
        return True

    def ask(self, number: int, why: Why) -> None:
        """Raise the soft limit or the cancel in the body of that number, if it still runs."""
        with contextlib.suppress(OSError):
            # The record first: the signal's handler looks for it, and does nothing without.
            os.write(self._control, STOP_RECORD.pack(number, _CODES[why]))
        self._signal(signal.SIGUSR1)

    def dump(self) -> None:
        """Have it write where its threads are to stderr; works while C code holds the GIL."""
        self._signal(signal.SIGUSR2)

    def kill(self, cause: str) -> None:
        """SIGKILL to it and its group. The first cause is kept."""
        with self._life:
            if self.exited.is_set():
                return
            self.killed_for = self.killed_for or cause
            kernel.kill_group(self.pid)

    def leave(self, seconds: float) -> None:
        """Ask it to end in good order; `leave_deadline` is when it should have."""
        self.leave_deadline = clock.monotonic() + seconds
        self.send(frame.pack(frame.LEAVE))
        self._moved(self.leave_deadline)

    def when_exited(self, call: Callable[[], None]) -> None:
        """Have it called, from any thread, when the child has ended; at once if it has."""
        with self._exit_lock:
            if not self.exited.is_set():
                self._on_exit = call
                return
        call()

    def await_exit(self, seconds: float) -> int | None:
        """After its frames have ended: its exit code, or minus the signal. Killed if it still lives then."""
        if self._pidfd is None:
            # Nothing tells us of its death: it has closed its connection, so it is not to live on.
            self.kill("garbled")
            self._bury(kernel.reap(self.pid, seconds))
        elif not self.exited.wait(seconds):
            self.kill("garbled")
            self.exited.wait(seconds)
        return self.exit_code

    def close(self) -> None:
        """Give back what it held here, once it has ended. Idempotent."""
        with self._sending:
            if self._closed:
                return
            self._closed = True
        self.output.close()
        os.close(self._control)
        self._poller.unwatch(self._connection.fileno(), self._connection.close)

    def _signal(self, number: signal.Signals) -> None:
        with self._life:
            if not self.exited.is_set():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(self.pid, number)

    def _reap(self) -> None:
        # Under the lock: once reaped, the number may be another's, and a kill would hit that.
        with self._life:
            self._bury(kernel.reap(self.pid))
        pidfd = self._pidfd
        assert pidfd is not None
        self._poller.unwatch(pidfd, lambda: os.close(pidfd))

    def _bury(self, code: int | None) -> None:
        self.exit_code = code
        # A process that the body forked may hold the other end: the reader must see the end all the same.
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        with self._exit_lock:
            self.exited.set()
            call, self._on_exit = self._on_exit, None
        if call is not None:
            # Not under the lock that we hold here: closing takes others.
            self._poller.soon(call)

    def _send_more(self) -> None:
        with self._sending:
            if self._closed:
                return
            try:
                sent = self._connection.send(self._unsent, socket.MSG_DONTWAIT)
                self._unsent = self._unsent[sent:]
            except BlockingIOError:
                return
            except OSError:
                self._unsent = b""
            if not self._unsent:
                self.send_deadline = inf
                self._poller.unwatch(self._connection.fileno())


def _pipe(*, receiver: contextlib.ExitStack, sender: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe whose ends are closed with these stacks."""
    ends = os.pipe()
    receiver.callback(os.close, ends[0])
    sender.callback(os.close, ends[1])
    return ends
