"""For tests of programs that submit tasks: run them at once in this process, or only record them. No Redis.

def test_report():
    with callboard.testing.eager():
        assert build.submit(month="2026-11").result() == {"rows": 100}

def test_the_view_asks_for_a_report(client):
    with callboard.testing.recording():
        client.post("/reports", data={"month": "2026-11"})
        assert_submitted(build, month="2026-11")
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from callboard import stdio
from callboard.context import TaskLogHandler
from callboard.handle import TaskHandle, found_by
from callboard.submit import Submission, encode_payload
from callboard.task import intercepted
from callboard.testing.local import LocalHandle, accepted
from callboard.testing.run import Run, finished
from callboard.testing.submits import AnyTask, Submits, SubmittedTask

__all__ = [
    "LocalHandle",
    "Submits",
    "SubmittedTask",
    "assert_not_submitted",
    "assert_submitted",
    "eager",
    "recording",
]

_active: list[Submits] = []


@contextmanager
def recording() -> Iterator[Submits]:
    """Submits are validated and recorded, and nothing runs: handles stay queued.

    `callboard.handle` finds them by their ids, here and in `eager`.
    """
    with _intercepting(_Recorder()) as submits:
        yield submits


@contextmanager
def eager() -> Iterator[Submits]:
    """Submits run at once, before `.submit()` returns: retries without their waits, delays ignored.

    The body gets what a worker would give it: a payload that went through JSON, `current()`, `progress`,
    its contract's retries; what it logs and prints is its log (and printed all the same). A result that is no
    JSON fails the task. Limits, memory and expiry are a worker's business and do not apply. The handle has
    the outcome; `.submit()` itself never raises what the body raised.
    """
    handler = TaskLogHandler(logging.DEBUG)
    root, ours = logging.getLogger(), logging.getLogger("callboard.task")
    level = ours.level
    root.addHandler(handler)
    stdio.capture()
    ours.setLevel(logging.DEBUG)
    try:
        with _intercepting(_Eager()) as submits:
            yield submits
    finally:
        stdio.release()
        root.removeHandler(handler)
        ours.setLevel(level)


def assert_submitted(task: AnyTask, **payload: Any) -> SubmittedTask:
    """Fail unless `task` was submitted with these properties in its payload; the last such submit.

    For its options look at the `submission` of what is returned: delay_ms, priority, queue, tags, ….
    """
    found = _now().of(task, **payload)
    if not found:
        others = "\n".join(f"  {item.name} {json.dumps(item.payload)}" for item in _now()) or "  nothing"
        raise AssertionError(f"{task.name} was not submitted with {payload!r}. What was submitted:\n{others}")
    return found[-1]


def assert_not_submitted(task: AnyTask, **payload: Any) -> None:
    """Fail if `task` was submitted with these properties in its payload."""
    found = _now().of(task, **payload)
    if found:
        raise AssertionError(f"{task.name} was submitted {len(found)} times, with {found[-1].payload!r}.")


def _now() -> Submits:
    if not _active:
        raise RuntimeError("Nothing is recorded here: use callboard.testing.recording() or eager().")
    return _active[-1]


def _find(task_id: str) -> LocalHandle | None:
    return next((item.handle for submits in _active for item in submits if item.handle.id == task_id), None)


@contextmanager
def _intercepting(interceptor: _Recorder) -> Iterator[Submits]:
    _active.append(interceptor.submits)
    try:
        with intercepted(interceptor), found_by(_find):
            yield interceptor.submits
    finally:
        _active.remove(interceptor.submits)


class _Recorder:
    def __init__(self) -> None:
        self.submits = Submits()

    def accept(self, task: AnyTask, submission: Submission) -> LocalHandle:
        encode_payload(submission.payload if isinstance(submission.payload, bytes) else b"")
        handle = LocalHandle(accepted(submission))
        self.submits.items.append(SubmittedTask(task, submission, handle))
        return handle

    def submit(self, task: AnyTask, submission: Submission) -> TaskHandle:
        return self.accept(task, submission)

    async def asubmit(self, task: AnyTask, submission: Submission) -> TaskHandle:
        return self.submit(task, submission)


class _Eager(_Recorder):
    def submit(self, task: AnyTask, submission: Submission) -> TaskHandle:
        run = Run(task, submission, self.accept(task, submission))
        while run.goes_on:
            with run.attempt():
                run.complete(finished(task.call(run.payload)))
        return run.handle

    async def asubmit(self, task: AnyTask, submission: Submission) -> TaskHandle:
        run = Run(task, submission, self.accept(task, submission))
        while run.goes_on:
            with run.attempt():
                value = task.call(run.payload)
                run.complete(await value if task.is_async else value)
        return run.handle
