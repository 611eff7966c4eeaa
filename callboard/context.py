"""Inside a body: what runs, how far it is, and how it may end otherwise than by returning.

Speaks to no store. Whoever runs a body (a worker's slot, eager mode, `callboard run`) calls `enter`
with a `Sink` that takes what the body reports.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol, TypeVar

from callboard.clock import timedelta_ms
from callboard.errors import CallboardError
from callboard.logging import bound

PROGRESS_BYTES: Final = 1024
LONGEST_DELAY: Final = timedelta(days=3653)

Hook = TypeVar("Hook", bound=Callable[[], object])


class OutsideTask(CallboardError):
    """`current()` was asked where no task runs."""

    code = "outside-task"


class Retry(Exception):
    """Raise it to run this task again: `raise Retry(after=30, message="the provider asks us to wait")`.

    `after`: seconds or a timedelta from now, None for the contract's own delay. `counts=False`
    spends no attempt (a snooze), so such a task can go on for ever.
    """

    def __init__(
        self, after: float | timedelta | None = None, *, counts: bool = True, message: str = ""
    ) -> None:
        super().__init__(message or "The task asked to be run again.")
        self.after_ms = None if after is None else delay_ms(after)
        self.counts = counts
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        after = None if self.after_ms is None else timedelta(milliseconds=self.after_ms)
        return _rebuild_retry, (after, self.counts, self.message)


def _rebuild_retry(after: timedelta | None, counts: bool, message: str) -> Retry:
    return Retry(after, counts=counts, message=message)


class Discard(Exception):
    """Raise it to end this task as failed (`permanent`) with no other attempt: `raise Discard("bad url")`."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class SoftLimitExceeded(Exception):
    """Raised in the body when its soft limit has passed; it may clean up, until the grace period ends.

    An ordinary exception, so that `finally` and `except` work; a body that swallows it is killed
    at its hard limit where its slot can be killed.
    """


class Cancelled(Exception):
    """Raised in the body when someone cancelled the task; raise it on after cleaning up.

    The task then ends cancelled, whatever exception the body makes of it; one that returns has completed.
    In an `async def` body asyncio's own CancelledError is raised instead.
    """


def delay_ms(delay: float | timedelta) -> int:
    """A delay in whole milliseconds. Raises ValueError below zero, above ten years, and for NaN."""
    try:
        span = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
    except (OverflowError, ValueError):
        raise ValueError(f"A delay is a number of seconds or a timedelta; got {delay!r}.") from None
    if not timedelta() <= span <= LONGEST_DELAY:
        raise ValueError(f"A delay is between zero and ten years; got {delay!r}.")
    return timedelta_ms(span)


class Sink(Protocol):
    """Takes what a body reports. Called from the body's threads, so it must not block.

    The sink, not the body, bounds how often it writes on: a body may report a million times.
    """

    def progress(self, blob: bytes) -> None:
        """JSON `{"current", "total", "message"}` of at most PROGRESS_BYTES; the last one counts."""

    def log(self, level: str, text: str) -> None:
        """A line for the task's log; `level` is debug, info, warning, error or critical."""


@dataclass(frozen=True, slots=True)
class CurrentTask:
    """The attempt that runs here. `max_attempts` None: endless. `payload`: None for a Dramatiq message."""

    id: str
    name: str
    queue: str
    attempt: int = 1
    max_attempts: int | None = 1
    owner: str = "default"
    payload: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def logger(self) -> logging.Logger:
        """Writes into the task's log (and the worker's)."""
        return logging.getLogger(f"callboard.task.{self.name}")

    @property
    def last_attempt(self) -> bool:
        """No retry follows if this attempt fails."""
        return self.max_attempts is not None and self.attempt >= self.max_attempts


# One slot of the context, so that the task and its sink can never be of different attempts.
_entered: ContextVar[tuple[CurrentTask, Sink] | None] = ContextVar("callboard_current", default=None)


@contextmanager
def enter(task: CurrentTask, sink: Sink) -> Iterator[CurrentTask]:
    """Make `task` the current one in this thread or coroutine, and what it starts with its context."""
    token = _entered.set((task, sink))
    try:
        with bound(task_id=task.id, attempt=task.attempt):
            yield task
    finally:
        _entered.reset(token)


def current() -> CurrentTask:
    """The task whose body calls this. Raises OutsideTask elsewhere, in threads of the body's own too."""
    entered = _entered.get()
    if entered is None:
        raise OutsideTask("No task runs here: current() belongs inside a task's body.")
    return entered[0]


def current_or_none() -> CurrentTask | None:
    """The task whose body calls this, or None."""
    entered = _entered.get()
    return entered[0] if entered else None


def progress(current: float, total: float | None = None, message: str = "") -> None:
    """Tell how far the body is: `progress(3, 10, "reading rows")`.

    Cheap and safe to call often. Does nothing outside a task, so that a body can be called plainly.
    Raises ValueError for numbers that are not finite.
    """
    entered = _entered.get()
    if entered is not None:
        entered[1].progress(progress_blob(current, total, message))
    else:
        _finite(current, total)


def progress_blob(current: float, total: float | None = None, message: str = "") -> bytes:
    """The wire form of a progress report; a message too long for it is cut."""
    _finite(current, total)
    blob = _encode(current, total, str(message)[:PROGRESS_BYTES])
    if len(blob) <= PROGRESS_BYTES and len(message) <= PROGRESS_BYTES:
        return blob
    # An escape makes a character up to 12 bytes long; the ellipsis takes 6.
    room = PROGRESS_BYTES - 6 - len(_encode(current, total, ""))
    kept = 0
    for character in message:
        room -= len(json.dumps(character)) - 2
        if room < 0:
            break
        kept += 1
    return _encode(current, total, message[:kept] + "…")


def _encode(current: float, total: float | None, message: str) -> bytes:
    document = {"current": current, "total": total, "message": message}
    return json.dumps(document, ensure_ascii=True, separators=(",", ":")).encode()


def _finite(*numbers: float | None) -> None:
    for number in numbers:
        # Larger integers are sound Python, but no reader of JSON keeps them.
        if number is not None and not (math.isfinite(number) and abs(number) < 1e300):
            raise ValueError(f"Progress is told in finite numbers; got {number!r}.")


class TaskLogHandler(logging.Handler):
    """Copies log records into the log of the task that made them. Attach it to the root logger."""

    def emit(self, record: logging.LogRecord) -> None:
        entered = _entered.get()
        if entered is None:
            return
        try:
            entered[1].log(level_name(record.levelno), self.format(record))
        except Exception:  # logging's own rule: a log line never ends its caller
            self.handleError(record)


def level_name(levelno: int) -> str:
    """One of the five levels of a task's log for any level number."""
    for floor, name in ((50, "critical"), (40, "error"), (30, "warning"), (20, "info")):
        if levelno >= floor:
            return name
    return "debug"


child_start_hooks: list[Callable[[], object]] = []
child_stop_hooks: list[Callable[[], object]] = []


def on_child_start(hook: Hook) -> Hook:
    """Run `hook()` when a worker's child process starts, before its first task: open pools here.

    Thread and loop slots run it once, in the worker's own process.
    """
    if hook not in child_start_hooks:
        child_start_hooks.append(hook)
    return hook


def on_child_stop(hook: Hook) -> Hook:
    """Run `hook()` when such a process ends in good order (not after a kill), the last registered first."""
    if hook not in child_stop_hooks:
        child_stop_hooks.append(hook)
    return hook
