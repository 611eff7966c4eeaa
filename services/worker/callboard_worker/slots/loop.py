"""Loop slots: a thousand async bodies on one event loop in one thread.

A stop is asyncio's cancellation, once. A body that does not end within the grace period is given up: its
outcome is reported and its coroutine left to itself (`stuck` counts them). A body that blocks the loop
blocks all of them; nothing but its own end helps, which is why plain functions do not belong here. While
it lasts, nothing more is claimed; when it outlasts its limits, the worker's liveness probe fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any

from callboard import clock
from callboard_worker.slots import body, inprocess
from callboard_worker.slots.limits import KIND_OF_STOP, Limits, Stint
from callboard_worker.slots.slot import GRACE_SECONDS, Assignment, InvokeAsync, Listener, Outcome, Why

logger = logging.getLogger(__name__)

_START_SECONDS = 10.0
_BLOCKED_SECONDS = 1.0
_WEDGED_SECONDS = 60.0


class LoopHost(Stint):
    """Where a body on the event loop runs."""

    __slots__ = ("asyncio_task", "entered", "name")

    def __init__(self, assignment: Assignment, listener: Listener, name: str) -> None:
        super().__init__(assignment, listener)
        self.name = name
        self.entered = False
        self.asyncio_task: asyncio.Task[None] | None = None

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return function(*args, **kwargs)

    def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        coroutine.close()
        raise RuntimeError("A body on the event loop is awaited, not driven.")


class LoopSlots:
    """`capacity` bodies at once. See `SlotGroup` for the methods.

    invoke: awaits the body, `body.execute_async` or a wrapper of it.
    grace_seconds: from the cancellation until the body is given up.
    """

    def __init__(
        self,
        capacity: int,
        listener: Listener,
        *,
        invoke: InvokeAsync | None = None,
        limits: Limits | None = None,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self.capacity = capacity
        self.listener = listener
        self.invoke: InvokeAsync = invoke or body.execute_async
        self.grace_seconds = grace_seconds
        self._limits = limits or Limits()
        self._own_limits = limits is None
        self._running: set[LoopHost] = set()
        self._given_up: set[asyncio.Task[None]] = set()
        self._names = deque(f"loop-{number}" for number in reversed(range(capacity)))
        self._inbox: deque[Callable[[], None]] = deque()
        self._woken = False
        self._asked_at = 0.0
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._up = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._ended = False

    @property
    def stuck(self) -> int:
        """Coroutines that were given up and have not ended yet."""
        return len(self._given_up)

    def start(self) -> None:
        if self._thread is not None:
            return
        inprocess.enter()
        self._thread = threading.Thread(target=self._serve, name="slot-loop", daemon=True)
        self._thread.start()
        self._up.wait(_START_SECONDS)
        self._limits.watch(self._look)

    def ready(self) -> bool:
        return self._up.is_set() and not self._closed

    def blocked(self) -> bool:
        return self._behind > _BLOCKED_SECONDS

    def wedged(self) -> str:
        # As long as its limit may still end the body's attempt, a new process would only run it again.
        if self._behind > _WEDGED_SECONDS and self._given_up:
            return "a body that does not end holds the event loop"
        return ""

    @property
    def _behind(self) -> float:
        """Seconds for which the loop has not come to what was asked of it."""
        return clock.monotonic() - self._asked_at if self._woken else 0.0

    def run(self, assignment: Assignment) -> None:
        if self._closed:
            raise ValueError("These slots are closed.")
        with self._lock:
            if not self._names:
                raise ValueError(f"All {self.capacity} loop slots are busy.")
            host = LoopHost(assignment, self.listener, self._names.pop())
            self._running.add(host)
            self._idle.clear()
        deadline = host.begin(self.grace_seconds, killable=False)
        if deadline != inf:
            self._limits.due(deadline)
        self._soon(lambda: self._begin(host))

    def stop(self, task_id: str, why: Why, token: str | None = None) -> None:
        with self._lock:
            hosts = [host for host in self._running if host.assignment.task_id == task_id]
        for host in hosts:
            if token is None or host.assignment.token == token:
                self._ask(host, why)

    def close(self, timeout: float) -> None:
        if self._closed:
            return
        self._closed = True
        self._idle.wait(max(0.0, timeout))
        with self._lock:
            left = list(self._running)
        for host in left:
            self._ask(host, "lost")
            self._give_up(host)
        self._limits.unwatch(self._look)
        if self._own_limits:
            self._limits.close()
        if self._thread is None:
            return
        loop = self._loop
        if loop is not None:
            self._ended = True
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(loop.stop)
        self._thread.join(self.grace_seconds + 1)
        inprocess.leave()

    # In the loop's thread.

    def _serve(self) -> None:
        with asyncio.Runner() as runner:
            loop = self._loop = runner.get_loop()
            loop.call_soon(self._up.set)
            while not self._ended:
                # A body may stop the loop, and its sys.exit in another task comes out here: siblings go on.
                try:
                    loop.run_forever()
                except BaseException as error:
                    logger.error("A body raised %s in the event loop, which goes on.", type(error).__name__)
            # Bodies that were given up are cancelled once more; who still does not end must not hold us.
            runner.run(self._last_chance())

    async def _last_chance(self) -> None:
        left = tuple(self._given_up)
        if left:
            await asyncio.wait(left, timeout=min(1.0, self.grace_seconds))

    def _begin(self, host: LoopHost) -> None:
        assert self._loop is not None
        host.asyncio_task = self._loop.create_task(self._live(host), name=host.assignment.task_id)

    async def _live(self, host: LoopHost) -> None:
        # A task that is cancelled before its first step never takes it, and nobody would report its end.
        host.entered = True
        try:
            if host.why is not None:
                raise asyncio.CancelledError
            outcome = await self.invoke(host.assignment, host)
        except BaseException as error:
            # A stop that came before the body, or a failure of what surrounds it.
            if host.why is None:
                logger.exception("The frame around task %s failed.", host.assignment.task_id)
            outcome = body.failed(host.assignment, host, error)
        self._conclude(host, host.told(outcome))

    def _conclude(self, host: LoopHost, outcome: Outcome) -> None:
        if not host.claim_end():
            return
        host.hush()
        with self._lock:
            self._running.discard(host)
            self._names.append(host.name)
        try:
            self.listener.finished(host.name, host.assignment, outcome)
        except Exception:
            logger.exception("The outcome of task %s was not taken.", host.assignment.task_id)
        if not self._running:
            self._idle.set()

    def _soon(self, call: Callable[[], None]) -> None:
        """Have the loop make a call. Many calls in a row wake it once."""
        loop = self._loop
        assert loop is not None
        self._inbox.append(call)
        if not self._woken:
            self._asked_at = clock.monotonic()
            self._woken = True
            with contextlib.suppress(RuntimeError):  # It has closed.
                loop.call_soon_threadsafe(self._empty_inbox)

    def _empty_inbox(self) -> None:
        # First this: what is appended from here on wakes the loop once more.
        self._woken = False
        while self._inbox:
            self._inbox.popleft()()

    # From any thread.

    def _ask(self, host: LoopHost, why: Why) -> None:
        if host.ask(why):
            if why != "shutdown":
                host.polite_at = inf
                host.kill_at = min(host.kill_at, clock.monotonic() + self.grace_seconds)
                self._limits.due(host.kill_at)
            self._cancel(host)

    def _cancel(self, host: LoopHost) -> None:
        def cancel() -> None:
            # Before it has entered, the coroutine looks at `why` itself.
            if host.entered and host.asyncio_task is not None:
                host.asyncio_task.cancel()

        self._soon(cancel)

    def _look(self, now: float) -> float:
        with self._lock:
            hosts = list(self._running)
        nearest = inf
        for host in hosts:
            if now >= host.polite_at:
                host.polite_at = inf
                if host.ask("limit"):
                    self._cancel(host)
            if now >= host.kill_at:
                host.kill_at = inf
                host.ask("limit")
                self._give_up(host)
            nearest = min(nearest, host.next_at)
        return nearest

    def _give_up(self, host: LoopHost) -> None:
        task = host.asyncio_task
        if task is not None:
            self._given_up.add(task)
            # Only the loop's own thread may touch its tasks.
            self._soon(lambda: task.add_done_callback(self._given_up.discard))
        if host.why != "lost":
            logger.error(
                "Task %s does not end when it is cancelled, or blocks the event loop; it is given up.",
                host.assignment.task_id,
            )
        why = host.why or "limit"
        outcome = Outcome(KIND_OF_STOP[why], error=host.stopped_error(why, killed=True), run_ms=host.run_ms)
        self._conclude(host, outcome)
