"""The protocol between the runner and the slots: one attempt goes in, one outcome comes out."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Kind = Literal["completed", "failed", "retry", "timeout", "memory", "crashed", "cancelled", "lost"]
"""How a body ended. ``retry`` is the body's own wish (``raise Retry``); ``lost``: nobody may record it."""

Why = Literal["shutdown", "limit", "cancel", "terminate", "lost"]
"""Why a body is stopped. ``limit`` and ``cancel`` are asked for in the body and leave it time to tidy up.

``shutdown`` tells a Dramatiq actor that asks for it (`notify_shutdown`) that its worker goes; no more.
"""

TRACEBACK_LIMIT_BYTES = 16 * 1024
MESSAGE_LIMIT_BYTES = 4 * 1024
LINE_LIMIT_BYTES = 8 * 1024
LOG_LIMIT_LINES = 1000
LOG_LIMIT_BYTES = 256 * 1024
GRACE_SECONDS = 5.0
"""Time between the polite request to stop and the kill."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """One attempt of one task. Limits count from the start of the body; None means none."""

    task_id: str
    name: str
    queue: str
    owner: str
    token: str
    attempt: int
    max_attempts: int | None
    payload: bytes = b"{}"
    """The keyword arguments, a JSON object; not read when `message` is given."""
    message: bytes | None = None
    """A Dramatiq message, encoded."""
    soft_limit_ms: int | None = None
    hard_limit_ms: int | None = None
    memory_limit_bytes: int | None = None
    """Anonymous memory of the child; process slots only."""


@dataclass(frozen=True, slots=True)
class TaskError:
    """Why an attempt failed, as text, so that it outlives the process that raised it."""

    type: str
    message: str
    traceback: str | None = None
    """The body's own frames, at most 16 KiB, of which the end is kept."""
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended."""

    kind: Kind
    result: bytes | None = None
    """JSON, of a completed body only."""
    error: TaskError | None = None
    retry_after_ms: int | None = None
    counts: bool = True
    """False: the attempt is not spent (``Retry(counts=False)``)."""
    exception: BaseException | None = None
    """The exception itself, for Dramatiq's hooks; thread and loop slots only."""
    value: Any = None
    """The returned object itself, for Dramatiq's hooks; thread and loop slots only."""
    run_ms: int = 0
    pickled: bytes | None = None
    """The exception of a Dramatiq message, from a child; see `remote`."""

    def returned(self) -> Any:
        """What the body returned: the object itself, or what its JSON says."""
        return json.loads(self.result) if self.value is None and self.result else self.value


class Listener(Protocol):
    """What the runner hears from its slots. Called from slot threads; must neither block nor raise."""

    def logged(self, assignment: Assignment, level: str, text: str) -> None:
        """One line of the task's log, at most 8 KiB; `level` is debug, info, warning, error or critical."""

    def progressed(self, assignment: Assignment, blob: bytes) -> None:
        """The newest progress, JSON of at most 1 KiB. May come often: the writer thins it out."""

    def finished(self, slot: str, assignment: Assignment, outcome: Outcome) -> None:
        """The attempt is over and its slot (named for people: ``process-3``) is free again.

        Comes exactly once for each `SlotGroup.run`, after the attempt's last line and progress. It may call
        `run` again.
        """


class SlotGroup(Protocol):
    """All slots of one form in one worker. It enforces soft, hard and memory limits by itself."""

    capacity: int

    def start(self) -> None:
        """Warm up. Raises `CallboardError` with the user's traceback if a task module cannot be imported."""

    def ready(self) -> bool:
        """Whether at least one slot is up."""

    def blocked(self) -> bool:
        """Whether what is started now would not begin: a body holds what all of them share."""

    def wedged(self) -> str:
        """Why nothing but a new process helps any more, in words; "" as long as something else may."""

    def run(self, assignment: Assignment) -> None:
        """Start one attempt. Does not block; never more at once than `capacity` (ValueError)."""

    def stop(self, task_id: str, why: Why, token: str | None = None) -> None:
        """Stop a running body: politely for shutdown, limit and cancel, at once for terminate and lost.

        A limit or cancel that is not honoured within the grace period ends in a kill where the form can kill.
        With `token`, only that attempt is meant: a lost one may still run here beside its rescued twin.
        Unknown tasks are ignored. The outcome comes through the listener as always.
        """

    def close(self, timeout: float) -> None:
        """Take no more, give running bodies `timeout` seconds, then end them as ``lost``. Idempotent."""


class Host(Protocol):
    """The place where a body runs, as the body's frame (`slots.body`) sees it.

    Only `call` and `drive` let a stop reach into running code, so hooks around them are never hit by one.
    """

    @property
    def stopping(self) -> Why | None:
        """The stop that was asked for, if any."""

    def log(self, level: str, text: str) -> None: ...

    def progress(self, blob: bytes) -> None: ...

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a plain function; a stop raises in it."""

    def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end from synchronous code; a stop cancels it."""


Invoke = Callable[[Assignment, Host], Outcome]
"""Runs one body in a thread slot: `slots.body.execute`, or a wrapper that adds Dramatiq's hooks."""

InvokeAsync = Callable[[Assignment, Host], Awaitable[Outcome]]
"""The same on the event loop: `slots.body.execute_async` or a wrapper of it."""
