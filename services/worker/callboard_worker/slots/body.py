"""Runs one body: finds it, gives it its arguments and its context, and turns its end into an outcome.

The same code serves threads, the event loop and child processes; where a body runs is its `Host`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.asyncio import async_to_sync, get_event_loop_thread
from dramatiq.middleware import CurrentMessage, Interrupt, Shutdown, TimeLimitExceeded

from callboard import clock
from callboard.broker.actors import own_function, wraps_coroutine
from callboard.broker.result import BadResult, encode_result
from callboard.context import Cancelled, CurrentTask, Discard, Retry, SoftLimitExceeded, enter
from callboard.errors import InvalidPayload, UnknownTask
from callboard.stdio import printing
from callboard.task import registered
from callboard_worker.slots.limits import KIND_OF_STOP
from callboard_worker.slots.lines import clip, clip_start
from callboard_worker.slots.slot import (
    MESSAGE_LIMIT_BYTES,
    TRACEBACK_LIMIT_BYTES,
    Assignment,
    Host,
    Outcome,
    TaskError,
    Why,
)

# Whose frames stand above the body's first one: these functions of ours, and Dramatiq's call of the actor.
_OUR_FOLDER = str(Path(__file__).parent)
_CALLERS = frozenset({"execute", "execute_async", "call", "drive", "main"})
_DRAMATIQ_FILES = (inspect.getfile(dramatiq.Actor), async_to_sync.__code__.co_filename)
_NOTHING = nullcontext()


class CancelledActor(Cancelled, Interrupt):
    """`Cancelled` for a Dramatiq actor: also an Interrupt, which Dramatiq's own waits let through."""


_STOPS = (SoftLimitExceeded, Cancelled, TimeLimitExceeded, asyncio.CancelledError)


def stop_exception(assignment: Assignment, why: Why) -> type[BaseException]:
    """What a stop raises in the body."""
    if why == "shutdown":
        return Shutdown
    if assignment.message is None:
        return SoftLimitExceeded if why == "limit" else Cancelled
    return TimeLimitExceeded if why == "limit" else CancelledActor


@dataclass(frozen=True, slots=True)
class Work:
    """What an assignment asks for, found and decoded."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    retryable: Callable[[BaseException], bool]
    is_async: bool
    keeps_result: bool = True
    """False for an actor whose return value nobody asked to keep: it may be anything then."""
    message: dramatiq.Message[Any] | None = None

    def surroundings(self) -> AbstractContextManager[None]:
        """What Dramatiq's own worker sets up around a body."""
        return _NOTHING if self.message is None else _message(self.message)


def find(assignment: Assignment) -> Work:
    """The work of an assignment. Raises UnknownTask, InvalidPayload, dramatiq.DecodeError, ActorNotFound."""
    if assignment.message is not None:
        return _find_actor(assignment.message)
    tasks = registered()
    task = tasks.get(assignment.name)
    if task is None:
        raise UnknownTask(assignment.name, tasks)
    contract = task.contract
    assert contract.adapter is not None
    args, kwargs = contract.adapter.arguments(assignment.payload)
    return Work(task.function, args, kwargs, contract.retryable, bool(contract.is_async))


def _find_actor(encoded: bytes) -> Work:
    message: dramatiq.Message[Any] = dramatiq.Message.decode(encoded)
    actor = dramatiq.get_broker().get_actor(message.actor_name)
    options = {**actor.options, **message.options}
    throws = message.options.get("throws") or actor.options.get("throws")

    def retryable(error: BaseException) -> bool:
        return not isinstance(error, Discard) and not (throws and isinstance(error, throws))

    function: Callable[..., Any] = actor
    is_async = wraps_coroutine(actor) and get_event_loop_thread() is None
    if is_async:
        # Dramatiq's wrapper wants the loop of its AsyncIO middleware, which lives in workers of its own.
        function = own_function(actor)
    return Work(
        function,
        message.args,
        message.kwargs,
        retryable,
        is_async,
        keeps_result=bool(options.get("store_results") or options.get("pipe_target")),
        message=message,
    )


def execute(assignment: Assignment, host: Host) -> Outcome:
    """Run the body here and now. Never raises what the body raises: that is in the outcome."""
    started = clock.monotonic()
    try:
        work = find(assignment)
    except Exception as error:
        return _unfindable(error)
    try:
        with enter(_current(assignment, work), host), printing(host), work.surroundings(), _no_copy():
            if work.is_async:
                value = host.drive(work.function(*work.args, **work.kwargs))
            else:
                value = host.call(work.function, work.args, work.kwargs)
                if inspect.iscoroutine(value):
                    value = host.drive(value)
    except BaseException as error:
        return failed(assignment, host, error, work.retryable, _ms_since(started))
    return completed(value, host, keeps_result=work.keeps_result, run_ms=_ms_since(started))


async def execute_async(assignment: Assignment, host: Host) -> Outcome:
    """The same on a running event loop. A plain function runs in a thread, where no stop can reach it."""
    started = clock.monotonic()
    try:
        work = find(assignment)
    except Exception as error:
        return _unfindable(error)
    try:
        with enter(_current(assignment, work), host), printing(host), work.surroundings(), _no_copy():
            function = work.function
            if not work.is_async and isinstance(function, dramatiq.Actor):
                function = own_function(function)
            if inspect.iscoroutinefunction(function):
                value = await function(*work.args, **work.kwargs)
            else:
                value = await asyncio.to_thread(function, *work.args, **work.kwargs)
                if inspect.isawaitable(value):
                    value = await value
    except BaseException as error:
        return failed(assignment, host, error, work.retryable, _ms_since(started))
    return completed(value, host, keeps_result=work.keeps_result, run_ms=_ms_since(started))


class _no_copy:
    """Ends a process that the body forked when it comes home here: it would be a second worker, or child."""

    # A class, as `printing` is.
    __slots__ = ("_pid",)

    def __enter__(self) -> None:
        self._pid = os.getpid()

    def __exit__(self, *_: object) -> None:
        if os.getpid() != self._pid:
            os._exit(0)


def _current(assignment: Assignment, work: Work) -> CurrentTask:
    return CurrentTask(
        id=assignment.task_id,
        name=assignment.name,
        queue=assignment.queue,
        attempt=assignment.attempt,
        max_attempts=assignment.max_attempts,
        owner=assignment.owner,
        payload=work.kwargs if work.message is None and not work.args else None,
    )


@contextmanager
def _message(message: dramatiq.Message[Any]) -> Iterator[None]:
    """Make it Dramatiq's current message, unless a hook of the runner has set one (its proxy) already."""
    if CurrentMessage.get_current_message() is not None:
        yield
        return
    token = CurrentMessage._MESSAGE.set(message)
    try:
        yield
    finally:
        CurrentMessage._MESSAGE.reset(token)


def completed(value: Any, host: Host, *, keeps_result: bool = True, run_ms: int = 0) -> Outcome:
    """The outcome of a body that returned: completed, or a permanent failure if its result cannot be kept."""
    try:
        result = encode_result(value)
    except BadResult as error:
        if keeps_result:
            problem = TaskError("BadResult", str(error), retryable=False)
            return Outcome("failed", error=problem, exception=error, value=value, run_ms=run_ms)
        host.log("debug", f"The return value is not kept. {error}")
        result = None
    return Outcome("completed", result=result, value=value, run_ms=run_ms)


def failed(
    assignment: Assignment,
    host: Host,
    error: BaseException,
    retryable: Callable[[BaseException], bool] | None = None,
    run_ms: int = 0,
) -> Outcome:
    """The outcome of a body that raised."""
    why = host.stopping
    if why == "shutdown":
        if isinstance(error, asyncio.CancelledError):
            # What asyncio makes of the exception that Dramatiq's own worker would show its hooks.
            cancelled, error = error, Shutdown("The worker was told to stop.")
            error.__cause__ = cancelled
    elif why is not None and _came_of_stop(error):
        problem = task_error(error, retryable=why == "limit")
        return Outcome(KIND_OF_STOP[why], error=problem, exception=error, run_ms=run_ms)
    if isinstance(error, Retry):
        return Outcome(
            "retry",
            error=task_error(error, retryable=True),
            retry_after_ms=error.after_ms,
            counts=error.counts,
            exception=error,
            run_ms=run_ms,
        )
    if isinstance(error, dramatiq.errors.Retry):
        delay = None if error.delay is None else max(0, int(error.delay))
        problem = task_error(error, retryable=True)
        return Outcome("retry", error=problem, retry_after_ms=delay, exception=error, run_ms=run_ms)
    if isinstance(error, MemoryError) and assignment.memory_limit_bytes is not None:
        return Outcome("memory", error=task_error(error, retryable=True), exception=error, run_ms=run_ms)
    again = True if retryable is None else retryable(error)
    return Outcome("failed", error=task_error(error, retryable=again), exception=error, run_ms=run_ms)


def task_error(error: BaseException, *, retryable: bool) -> TaskError:
    """An exception as text: its class, its message (4 KiB), the body's traceback (16 KiB, the end kept)."""
    try:
        message = str(error)
    except Exception as broken:
        message = f"(its message cannot be read: {type(broken).__name__})"
    try:
        trace: str | None = clip_start(_bodys_traceback(error), TRACEBACK_LIMIT_BYTES)
    except Exception as broken:
        trace = f"(its traceback cannot be shown: {type(broken).__name__})"
    return TaskError(
        clip(type(error).__qualname__, 200), clip(message, MESSAGE_LIMIT_BYTES), trace, retryable
    )


def _unfindable(error: Exception) -> Outcome:
    # What cannot be decoded never will be; a name that is unknown here may be known to the next worker.
    final = isinstance(error, (InvalidPayload, dramatiq.errors.DecodeError))
    problem = task_error(error, retryable=not final)
    return Outcome("failed", error=replace(problem, traceback=None) if final else problem, exception=error)


def _came_of_stop(error: BaseException) -> bool:
    """Whether the exception is the stop's, or was raised because of it (`raise Wrapped from …`)."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        if isinstance(link, _STOPS):
            return True
        seen.add(id(link))
        waiting += (link.__cause__, link.__context__)
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions
    return False


def _bodys_traceback(error: BaseException) -> str:
    """The traceback without our frames: those that called the body, and those that raised a stop in it."""
    told = traceback.TracebackException.from_exception(error)
    frames = list(told.stack)
    entered = [index for index, frame in enumerate(frames) if _is_ours(frame) and frame.name in _CALLERS]
    first = entered[-1] + 1 if entered else 0
    while first < len(frames) and frames[first].filename in _DRAMATIQ_FILES:
        first += 1
    told.stack = traceback.StackSummary.from_list(frames[first:])
    waiting: list[traceback.TracebackException | None] = [told]
    while waiting:
        part = waiting.pop()
        if part is not None:
            part.stack = traceback.StackSummary.from_list(f for f in part.stack if not _is_ours(f))
            waiting += (part.__cause__, part.__context__, *(part.exceptions or ()))
    return "".join(told.format())


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(_OUR_FOLDER)


def _ms_since(started: float) -> int:
    return round((clock.monotonic() - started) * 1000)
