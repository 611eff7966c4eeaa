"""Running a task's attempts at once, as a worker would, without its waits."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from callboard import clock
from callboard.broker.result import BadResult, encode_result
from callboard.context import Cancelled, CurrentTask, Retry, SoftLimitExceeded, enter
from callboard.records import Attempt, State
from callboard.records.log import LogLine
from callboard.stdio import printing
from callboard.submit import Submission
from callboard.task import Task
from callboard.testing.local import LocalHandle

#: A task that always asks to be run again is stopped after this many runs.
MOST_RUNS: Final = 100


class Run:
    """The attempts of one task in eager mode; also the Sink of its body."""

    def __init__(self, task: Task[..., Any, Any], submission: Submission, handle: LocalHandle) -> None:
        self.task = task
        self.handle = handle
        self.owner = submission.owner
        self.payload = submission.payload if isinstance(submission.payload, bytes) else b"{}"
        self.number = 1
        self.runs = 0

    @property
    def goes_on(self) -> bool:
        return not self.handle.record().state.terminal

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Run the body inside; what it raises decides how the task goes on."""
        record = self.handle.record()
        started = clock.now_ms()
        self.runs += 1
        self._set(state=State.RUNNING, attempt=self.number, started_at=record.started_at or started)
        current = CurrentTask(
            id=record.id,
            name=record.name,
            queue=record.queue,
            attempt=self.number,
            max_attempts=record.max_attempts,
            owner=self.owner,
            payload=record.payload,
        )
        try:
            with enter(current, self), printing(self, echo=True):
                yield
        except Cancelled:
            self._end(State.CANCELLED, "cancelled", started, "cancelled", None)
        except (Exception, SystemExit) as error:
            self._failed(error, started)

    def complete(self, value: Any) -> None:
        """Record the body's result. Raises BadResult when it is too large or no JSON."""
        self._set(result=json.loads(encode_result(value)))
        self._end(State.COMPLETED, None, self.handle.record().started_at or 0, "completed", None)

    def _failed(self, error: BaseException, started: int) -> None:
        record = self.handle.record()
        self.handle.error = error
        asked = error if isinstance(error, Retry) else None
        told = {
            "type": type(error).__qualname__,
            "message": str(error),
            "traceback": "".join(traceback.format_exception(error)),
            "retryable": asked is not None
            or (not isinstance(error, BadResult) and self.task.contract.retryable(error)),
        }
        if asked is not None and not asked.counts and self.runs < MOST_RUNS:
            return
        last = record.max_attempts is not None and self.number >= record.max_attempts
        outcome = "timeout" if isinstance(error, SoftLimitExceeded) else "failed"
        if not told["retryable"]:
            self._end(State.FAILED, "permanent", started, outcome, told)
        elif last or self.runs >= MOST_RUNS:
            self._end(
                State.FAILED, "timeout" if outcome == "timeout" else "exhausted", started, outcome, told
            )
        else:
            self._note(started, outcome, told)
            self.number += 1

    def _note(self, started: int, outcome: str, error: dict[str, Any] | None) -> None:
        attempt = Attempt(self.number, outcome, started, clock.now_ms(), "eager", error)
        self._set(attempts=(*self.handle.record().attempts, attempt)[-20:])

    def _end(
        self, state: State, reason: str | None, started: int, outcome: str, error: dict[str, Any] | None
    ) -> None:
        self._note(started, outcome, error)
        self._set(state=state, reason=reason, error=error, finished_at=clock.now_ms())

    def _set(self, **changes: Any) -> None:
        self.handle.known = replace(self.handle.known, **changes)

    def progress(self, blob: bytes) -> None:
        told = json.loads(blob)
        total = told["total"]
        told["percent"] = round(min(100, max(0, 100 * told["current"] / total)), 1) if total else None
        self._set(progress=told)

    def log(self, level: str, text: str) -> None:
        lines = self.handle.lines
        lines.append(LogLine(len(lines) + 1, clock.now_ms(), self.number, level, text))


def finished(value: Any) -> Any:
    """The value of a coroutine, also where a loop is running already: then on another thread's loop."""
    if not asyncio.iscoroutine(value):
        return value
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(value)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        run: Callable[..., Any] = asyncio.run
        return thread.submit(contextvars.copy_context().run, run, value).result()
