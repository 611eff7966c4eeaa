"""Thread slots: cheap, for bodies that wait. They share the runner's process, so they cannot be killed.

A stop raises in the body once. A body that does not heed it within the grace period is given up: its
outcome is reported, its thread is left to itself (`stuck` counts such threads) and another takes its
place, until as many threads are stuck as there are slots; from then on a slot waits for its body.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from math import inf
from queue import SimpleQueue
from typing import Any

from callboard import clock
from callboard_worker.slots import body, inprocess
from callboard_worker.slots.interrupt import Guard
from callboard_worker.slots.limits import KIND_OF_STOP, Limits, Stint
from callboard_worker.slots.slot import GRACE_SECONDS, Assignment, Invoke, Listener, Outcome, Why

logger = logging.getLogger(__name__)


class ThreadHost(Stint):
    """Where a body in a thread runs."""

    __slots__ = ("_loop", "guard")

    def __init__(self, assignment: Assignment, listener: Listener) -> None:
        super().__init__(assignment, listener)
        self.guard: Guard | None = None
        self._loop: Callable[[], asyncio.Runner] | None = None

    def enter_thread(self, loop: Callable[[], asyncio.Runner]) -> None:
        """Called by the thread that will run the body."""
        self._loop = loop
        self.guard = Guard()
        if self.why is not None:
            self.interrupt(self.why)

    def interrupt(self, why: Why) -> None:
        """Raise in the body, now or as soon as it starts. No effect on a body that has ended."""
        if self.guard is not None:
            self.guard.deliver(body.stop_exception(self.assignment, why))

    def log(self, level: str, text: str) -> None:
        if self.guard is None:
            super().log(level, text)
            return
        with self.guard.shielded():
            super().log(level, text)

    def progress(self, blob: bytes) -> None:
        if self.guard is None:
            super().progress(blob)
            return
        with self.guard.shielded():
            super().progress(blob)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert self.guard is not None
        return self.guard.call(function, args, kwargs)

    def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        assert self._loop is not None
        guard = self.guard
        assert guard is not None

        async def main() -> Any:
            task = asyncio.current_task()
            loop = asyncio.get_running_loop()
            assert task is not None
            guard.cancel_with(lambda: loop.call_soon_threadsafe(task.cancel))
            return await coroutine

        return self._loop().run(main(), context=copy_context())


class _Slot:
    """One thread and what it runs."""

    __slots__ = ("_loop", "group", "inbox", "name", "stint", "thread")

    def __init__(self, group: ThreadSlots, name: str) -> None:
        self.group = group
        self.name = name
        self.inbox: SimpleQueue[ThreadHost | None] = SimpleQueue()
        self.stint: ThreadHost | None = None
        self._loop: asyncio.Runner | None = None
        self.thread = threading.Thread(target=self._serve, name=f"slot-{name}", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        invoke = self.group.invoke
        while (stint := self.inbox.get()) is not None:
            stint.enter_thread(self._event_loop)
            try:
                outcome = invoke(stint.assignment, stint)
            except BaseException as error:
                # Only what surrounds the body (hooks) gets here; the attempt must have an end all the same.
                logger.exception("The frame around task %s failed.", stint.assignment.task_id)
                outcome = body.failed(stint.assignment, stint, error)
            if not self.group.conclude(self, stint, outcome):
                break
            del stint, outcome
        if self._loop is not None:
            self._loop.close()

    def _event_loop(self) -> asyncio.Runner:
        if self._loop is None or self._loop.get_loop().is_closed():
            self._loop = asyncio.Runner()
        return self._loop


class ThreadSlots:
    """`capacity` threads. See `SlotGroup` for the methods.

    invoke: runs the body in its thread, `body.execute` or a wrapper of it.
    grace_seconds: from the polite stop until the body is given up.
    """

    def __init__(
        self,
        capacity: int,
        listener: Listener,
        *,
        invoke: Invoke | None = None,
        limits: Limits | None = None,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self.capacity = capacity
        self.listener = listener
        self.invoke: Invoke = invoke or body.execute
        self.grace_seconds = grace_seconds
        self._limits = limits or Limits()
        self._own_limits = limits is None
        self._slots: list[_Slot] = []
        self._free: deque[_Slot] = deque()
        self._given_up: list[threading.Thread] = []
        self._started = False
        self._closed = False

    @property
    def stuck(self) -> int:
        """Threads whose body was given up and has not ended yet."""
        self._given_up = [thread for thread in self._given_up if thread.is_alive()]
        return len(self._given_up)

    def start(self) -> None:
        if self._started:
            return
        inprocess.enter()
        self._started = True
        self._slots = [_Slot(self, f"thread-{number}") for number in range(self.capacity)]
        self._free.extend(self._slots)
        self._limits.watch(self._look)

    def ready(self) -> bool:
        return self._started and not self._closed

    def blocked(self) -> bool:
        return False

    def wedged(self) -> str:
        if self.stuck < self.capacity:
            return ""
        late = sum(
            1
            for slot in self._slots
            if (stint := slot.stint) is not None and stint.why and stint.next_at == inf
        )
        return "every thread slot is held by a body that does not stop" if late == self.capacity else ""

    def run(self, assignment: Assignment) -> None:
        if self._closed:
            raise ValueError("These slots are closed.")
        try:
            slot = self._free.pop()
        except IndexError:
            raise ValueError(f"All {self.capacity} thread slots are busy.") from None
        stint = ThreadHost(assignment, self.listener)
        deadline = stint.begin(self.grace_seconds, killable=False)
        slot.stint = stint
        if deadline != inf:
            self._limits.due(deadline)
        slot.inbox.put(stint)

    def stop(self, task_id: str, why: Why, token: str | None = None) -> None:
        for slot in self._slots:
            stint = slot.stint
            if stint is None or stint.assignment.task_id != task_id:
                continue
            if token is not None and stint.assignment.token != token:
                continue
            self._ask(stint, why)

    def close(self, timeout: float) -> None:
        if self._closed:
            return
        self._closed = True
        deadline = clock.monotonic() + timeout
        for slot in self._slots:
            # Behind whatever the slot still runs.
            slot.inbox.put(None)
        for slot in self._slots:
            slot.thread.join(max(0.0, deadline - clock.monotonic()))
        for slot in self._slots:
            if slot.thread.is_alive() and (stint := slot.stint) is not None:
                self._ask(stint, "lost")
                self._give_up(slot, stint)
        self._limits.unwatch(self._look)
        if self._own_limits:
            self._limits.close()
        if self._started:
            inprocess.leave()

    def conclude(self, slot: _Slot, stint: ThreadHost, outcome: Outcome) -> bool:
        """Report an outcome from the slot's own thread; False if the body had been given up before."""
        if not stint.claim_end():
            return False
        stint.hush()
        slot.stint = None
        self._free.append(slot)
        self._tell(slot, stint, stint.told(outcome))
        return True

    def _tell(self, slot: _Slot, stint: ThreadHost, outcome: Outcome) -> None:
        try:
            self.listener.finished(slot.name, stint.assignment, outcome)
        except Exception:
            logger.exception("The outcome of task %s was not taken.", stint.assignment.task_id)

    def _ask(self, stint: ThreadHost, why: Why) -> None:
        if stint.ask(why):
            if why != "shutdown":
                stint.polite_at = inf
                stint.kill_at = min(stint.kill_at, clock.monotonic() + self.grace_seconds)
                self._limits.due(stint.kill_at)
            stint.interrupt(why)

    def _look(self, now: float) -> float:
        """Stop what is over its limits; the next deadline."""
        nearest = inf
        for slot in list(self._slots):
            stint = slot.stint
            if stint is None:
                continue
            if now >= stint.polite_at:
                stint.polite_at = inf
                if stint.ask("limit"):
                    stint.interrupt("limit")
            if now >= stint.kill_at:
                stint.kill_at = inf
                stint.ask("limit")
                if self.stuck < self.capacity:
                    self._give_up(slot, stint)
                else:
                    logger.error(
                        "Task %s does not stop, and %d threads are stuck already: its slot waits for it.",
                        stint.assignment.task_id,
                        self.capacity,
                    )
            nearest = min(nearest, stint.next_at)
        return nearest

    def _give_up(self, slot: _Slot, stint: ThreadHost) -> None:
        if not stint.claim_end():
            return
        if stint.why != "lost":
            logger.error(
                "Task %s does not stop (its soft limit and cancel are exceptions, which it swallows or which "
                "cannot reach it); its thread is given up.",
                stint.assignment.task_id,
            )
        stint.hush()
        self._given_up.append(slot.thread)
        why = stint.why or "limit"
        outcome = Outcome(KIND_OF_STOP[why], error=stint.stopped_error(why, killed=True), run_ms=stint.run_ms)
        if not self._closed:
            heir = _Slot(self, slot.name)
            self._slots[self._slots.index(slot)] = heir
            self._free.append(heir)
        slot.stint = None
        self._tell(slot, stint, outcome)
