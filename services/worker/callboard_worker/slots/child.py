"""A child process: runs one body at a time in its main thread, and tells the worker how it goes."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import faulthandler
import logging
import os
import resource
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

from callboard import stdio
from callboard.catalog import loading
from callboard.context import TaskLogHandler, child_start_hooks, current_or_none
from callboard.errors import CallboardError
from callboard_worker.slots import birth, body, frame, inprocess, kernel, remote
from callboard_worker.slots.lines import LogBudget
from callboard_worker.slots.slot import Assignment, Why

logger = logging.getLogger(__name__)

STOP_SIGNALS = frozenset({signal.SIGUSR1})
STOP_RECORD = struct.Struct("<QB")
"""What the worker writes into the control pipe before it sends the signal: which task, and why."""
STOP_CODES: dict[int, Why] = {1: "limit", 2: "cancel", 3: "shutdown"}

_HANDLED = frozenset({signal.SIGINT, signal.SIGTERM, *STOP_SIGNALS})
_NOTHING = object()
_log_handler = TaskLogHandler()


class Child:
    """The process: its connection, its control pipe and the body that runs."""

    def __init__(self, connection: socket.socket, control: int) -> None:
        self.pid = os.getpid()
        self.control = control
        self.host: ChildHost | None = None
        self.stops: dict[int, Why] = {}
        self._latest = 0
        self._connection = connection
        self._lock = threading.Lock()
        self._loop: asyncio.Runner | None = None
        self._libc = ctypes.CDLL(None)
        self._mask = threading.local()

    def send(self, *fields: Any) -> None:
        """A frame to the worker. A dead worker is no error here: the kernel ends us in a moment."""
        packed = frame.pack(*fields)
        with self._lock, contextlib.suppress(OSError):
            self._connection.sendall(packed)

    def serve(self) -> None:
        """Run what comes until the worker says so or is gone."""
        reader = frame.Reader()
        while data := frame.receive(self._connection):
            for message in reader.feed(data):
                if message[0] == frame.LEAVE:
                    return
                if message[0] == frame.RUN:
                    self._run(message[1], frame.assignment_from(message[2]))

    def _run(self, number: int, assignment: Assignment) -> None:
        self._latest = number
        # A body before may have put a handler of its own there.
        signal.signal(signal.SIGUSR1, self.on_signal)
        _take_logging()
        host = self.host = ChildHost(self, number, assignment)
        try:
            with _memory_limit(assignment.memory_limit_bytes):
                outcome = body.execute(assignment, host)
        except BaseException as error:
            # Around the body there is only ours; but where memory is short anything may fail.
            outcome = body.failed(assignment, host, error)
        if os.getpid() != self.pid:
            # The body forked, and this is the copy coming home: it must not answer for its parent.
            os._exit(0)
        host.finish()
        self._flush()
        self.host = None
        self.stops.pop(number, None)
        pickled = remote.packed(outcome.exception) if assignment.message is not None else None
        self.send(frame.DONE, number, frame.outcome_fields(outcome, pickled=pickled))

    def read_control(self) -> None:
        """Note the stops that the worker asked for. Called from the signal's handler, so it never blocks."""
        try:
            data = os.read(self.control, STOP_RECORD.size * 64)
        except OSError:
            return
        for number, code in STOP_RECORD.iter_unpack(data[: len(data) // STOP_RECORD.size * STOP_RECORD.size]):
            if number < self._latest:
                continue
            self.stops[number] = STOP_CODES[code]
            if self.host is not None and self.host.number == number:
                self.host.asked = True

    def on_signal(self, *_: object) -> None:
        """A stop for the body that runs, or a late one for a body that is over: the number tells."""
        self.read_control()
        if self.host is not None:
            self.host.strike()

    def event_loop(self) -> asyncio.Runner:
        """One loop for all async bodies of this process, so that their clients can outlive a task."""
        if self._loop is None or self._loop.get_loop().is_closed():
            self._loop = asyncio.Runner()
        return self._loop

    def leave(self) -> None:
        """What a process that ends in good order owes its user."""
        inprocess.run_stop_hooks()
        if self._loop is not None:
            self._loop.close()
        # As multiprocessing does for its children since 3.12; os._exit, which follows, would skip them.
        atexit._run_exitfuncs()

    def before_fork(self) -> None:
        """The body forks. A signal for the new process must wait until that has its own dispositions."""
        self._mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)

    def after_fork(self) -> None:
        """In the process that forked."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask.before)

    def forsake(self) -> None:
        """In a process that the body forked: it is not ours to speak, nor deaf to signals."""
        for number in _HANDLED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask.before - STOP_SIGNALS)
        faulthandler.unregister(signal.SIGUSR2)
        if self.host is not None:
            self.host.forsaken = True
        stdio.detach()
        self._connection.close()
        with contextlib.suppress(OSError):
            os.close(self.control)

    def _flush(self) -> None:
        for stream in (sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(Exception):
                if stream is not None:
                    stream.flush()
        # What C code printed stands in C's own buffer.
        self._libc.fflush(None)


class ChildHost:
    """Where a body in a child process runs."""

    def __init__(self, child: Child, number: int, assignment: Assignment) -> None:
        self.number = number
        self.forsaken = False
        # A stop that has not struck yet; one may have come before this object was there.
        self.asked = number in child.stops
        self._child = child
        self._assignment = assignment
        self._budget = LogBudget()
        self._main = threading.get_ident()
        self._armed = False
        self._sending = False
        self._canceller: Callable[[], object] | None = None

    @property
    def stopping(self) -> Why | None:
        return self._child.stops.get(self.number)

    def log(self, level: str, text: str) -> None:
        if self.forsaken:
            with contextlib.suppress(OSError):
                os.write(2, f"{text}\n".encode("utf-8", "replace"))
        elif (line := self._budget.admit(text)) is not None:
            self._send(frame.LOGGED, level, line)

    def progress(self, blob: bytes) -> None:
        if not self.forsaken:
            self._send(frame.PROGRESSED, blob)

    def finish(self) -> None:
        """Tell of lines that were dropped."""
        if self._budget.dropped:
            self._child.send(frame.DROPPED, self.number, self._budget.dropped)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value: Any = _NOTHING
        try:
            try:
                self._armed = True
                # A stop that came early strikes in this line.
                signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
                value = function(*args, **kwargs)
            finally:
                self._armed = False
                signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        except BaseException:
            # It may have struck in the lines above: shut again, now undisturbed.
            self._armed = False
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            if value is _NOTHING:
                raise
        return value

    def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        # The signal stays blocked: an exception out of a handler would end the loop, not the task.
        async def main() -> Any:
            loop = asyncio.get_running_loop()
            task = asyncio.current_task()
            assert task is not None
            self._canceller = lambda: loop.call_soon_threadsafe(task.cancel)
            loop.add_reader(self._child.control, self._child.on_signal)
            self.strike()
            try:
                return await coroutine
            finally:
                loop.remove_reader(self._child.control)
                self._canceller = None

        return self._child.event_loop().run(main(), context=copy_context())

    def strike(self) -> None:
        """Let a stop take effect, if there is one and this is the moment."""
        if not self.asked or self._sending:
            return
        if self._canceller is not None:
            self.asked = False
            self._canceller()
        elif self._armed:
            self.asked = False
            raise body.stop_exception(self._assignment, self.stopping or "cancel")

    def _send(self, kind: int, *fields: Any) -> None:
        if threading.get_ident() != self._main:
            self._child.send(kind, self.number, *fields)
            return
        # An exception in the midst of a frame would garble all that follow.
        self._sending = True
        try:
            self._child.send(kind, self.number, *fields)
        finally:
            self._sending = False
        self.strike()


@contextmanager
def _memory_limit(limit: int | None) -> Iterator[None]:
    """Let allocations fail half above the limit: the worker looks each 250 ms, a spike is faster.

    Counted on top of what is mapped and untouched when the body starts, such as stacks of threads.
    """
    data = kernel.data_bytes() if limit is not None else None
    if limit is None or data is None:
        yield
        return
    former, most = resource.getrlimit(resource.RLIMIT_DATA)
    untouched = max(0, data - (kernel.anonymous_bytes(os.getpid()) or data))
    wanted = limit * 3 // 2 + untouched
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (former, most))


def main(lifeline: int, settings: birth.Settings, descriptors: list[int], engines: list[Any]) -> int:
    """The life of a child, from the fork on. `descriptors`: connection, control, stdout, stderr."""
    connection, control = birth.settle(lifeline, settings, descriptors)
    child = Child(connection, control)
    _take_signals(child)
    os.register_at_fork(
        before=child.before_fork, after_in_parent=child.after_fork, after_in_child=child.forsake
    )
    stdio.capture()
    faulthandler.enable(2)
    faulthandler.register(signal.SIGUSR2, file=2, all_threads=True)
    try:
        loading.load(settings.modules)
        birth.part_from_siblings(engines)
        for hook in child_start_hooks:
            hook()
    except CallboardError as error:
        child.send(frame.UNREADY, str(error))
        return 1
    except BaseException as error:
        child.send(frame.UNREADY, loading.users_traceback(error))
        return 1
    # After the user's code, which may configure logging anew.
    _take_logging()
    child.send(frame.READY)
    child.serve()
    child.leave()
    return 0


def _take_signals(child: Child) -> None:
    # Handlers and not SIG_IGN: programs that the body starts would inherit that, and outlive terminate().
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    # Blocked outside of bodies: the nursery's mask is ours.
    signal.signal(signal.SIGUSR1, child.on_signal)


def _take_logging() -> None:
    """Have log records reach the task's log, whatever has become of the handlers."""
    root = logging.getLogger()
    if _log_handler in root.handlers:
        return
    for handler in root.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            # A body's records reach its log as records; as lines on stderr they would come again.
            handler.addFilter(_outside_tasks)
    if not root.handlers:
        outside = logging.StreamHandler(sys.__stderr__)
        outside.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        outside.addFilter(_outside_tasks)
        root.addHandler(outside)
    root.addHandler(_log_handler)


def _outside_tasks(_: logging.LogRecord) -> bool:
    return current_or_none() is None
