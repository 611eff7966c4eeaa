"""Process slots: a warm child for each, which can be stopped whatever it does, alone."""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Sequence
from math import inf

from callboard import clock
from callboard_worker.slots import kernel
from callboard_worker.slots.forkserver import Forkserver
from callboard_worker.slots.handle import ChildHandle
from callboard_worker.slots.limits import Limits, Stint
from callboard_worker.slots.poller import Poller
from callboard_worker.slots.process_slot import ProcessSlot
from callboard_worker.slots.slot import GRACE_SECONDS, Assignment, Listener, Outcome, Why
from callboard_worker.slots.strays import LOOK_SECONDS, SOON_SECONDS, Strays

logger = logging.getLogger(__name__)

LEAVE_SECONDS = 10.0
"""How long the hooks of on_child_stop may take."""


class ProcessSlots:
    """`capacity` children, forked from one process that has imported `modules`. See `SlotGroup`.

    grace_seconds: from a cancel, or from a soft limit without a hard one, until the kill.
    tasks_per_child: after so many (± 10%) a child is replaced; None for never.
    """

    def __init__(
        self,
        capacity: int,
        listener: Listener,
        *,
        modules: Sequence[str] = (),
        limits: Limits | None = None,
        grace_seconds: float = GRACE_SECONDS,
        tasks_per_child: int | None = None,
    ) -> None:
        self.capacity = capacity
        self.listener = listener
        self.grace_seconds = grace_seconds
        self.tasks_per_child = tasks_per_child
        self.limits = limits or Limits()
        self.closing = threading.Event()
        self._own_limits = limits is None
        self._modules = list(modules)
        self._slots = [ProcessSlot(self, f"process-{number}") for number in range(capacity)]
        self._free: deque[ProcessSlot] = deque(reversed(self._slots))
        self._lock = threading.Lock()
        self._retired: list[ChildHandle] = []
        self._poller: Poller | None = None
        self._forkserver: Forkserver | None = None
        self._oom_kills = kernel.oom_kills()
        self._strays = Strays(self._knows)
        self._next_stray_look = inf
        self._closed = False

    @property
    def poller(self) -> Poller:
        assert self._poller is not None
        return self._poller

    @property
    def forkserver(self) -> Forkserver:
        assert self._forkserver is not None
        return self._forkserver

    def start(self) -> None:
        if self._forkserver is not None:
            return
        forkserver = Forkserver(self._modules)
        try:
            forkserver.start()
        except BaseException:
            forkserver.close()
            raise
        self._forkserver = forkserver
        self._poller = Poller("slot-poller")
        self._next_stray_look = clock.monotonic() + LOOK_SECONDS
        self.limits.watch(self._look)
        self.limits.due(self._next_stray_look)
        if self._slots:
            self._slots[0].want()

    def ready(self) -> bool:
        return not self.closing.is_set() and any(slot.up for slot in self._slots)

    def blocked(self) -> bool:
        # The tasks that it goes on claiming would be kept from workers whose children do start.
        return not any(slot.up for slot in self._slots) and any(slot.hopeless for slot in self._slots)

    def wedged(self) -> str:
        return ""

    @property
    def pids(self) -> dict[str, int]:
        """The children that live, by slot."""
        return {slot.name: slot.child.pid for slot in self._slots if slot.child is not None}

    def run(self, assignment: Assignment) -> None:
        if self.closing.is_set():
            raise ValueError("These slots are closed.")
        with self._lock:
            slot = self._choose()
        slot.give(Stint(assignment, self.listener))

    def stop(self, task_id: str, why: Why, token: str | None = None) -> None:
        for slot in self._slots:
            slot.stop(task_id, why, token)

    def close(self, timeout: float) -> None:
        if self._closed:
            return
        self._closed = True
        deadline = clock.monotonic() + timeout
        self.closing.set()
        for slot in self._slots:
            self.part(slot)
        for slot in self._slots:
            if slot.thread is not None:
                slot.thread.join(max(0.0, deadline - clock.monotonic()))
        for slot in self._slots:
            if (stint := slot.stint) is not None:
                slot.stop(stint.assignment.task_id, "lost", None)
        for slot in self._slots:
            if slot.thread is not None:
                slot.thread.join(5.0)
        self._await_retired(max(1.0, deadline - clock.monotonic()))
        self.limits.unwatch(self._look)
        if self._own_limits:
            self.limits.close()
        if self._forkserver is not None:
            self._forkserver.close()
        if self._poller is not None:
            self._poller.close()

    # For the slots.

    def tasks_of_a_child(self) -> float:
        """How many tasks the next child may run; spread, so that children do not all end at once."""
        if self.tasks_per_child is None:
            return inf
        return max(1, round(self.tasks_per_child * random.uniform(0.9, 1.1)))

    def freed(self, slot: ProcessSlot, stint: Stint, outcome: Outcome) -> None:
        """A slot has a place again: report what it had."""
        with self._lock:
            self._free.append(slot)
        if self.closing.is_set():
            self.part(slot)
        try:
            self.listener.finished(slot.name, stint.assignment, outcome)
        except Exception:
            logger.exception("The outcome of task %s was not taken.", stint.assignment.task_id)

    def part(self, slot: ProcessSlot) -> None:
        """Let an idle child go, and hand back what no child has begun: the slots are closing."""
        with slot.lock:
            child, stint = slot.child, slot.stint
            if stint is None and child is not None:
                slot.child = None
                slot.up = False
        if stint is None and child is not None:
            self.retire(child)
        elif stint is not None and not slot.sent:
            slot.stop(stint.assignment.task_id, "lost", None)

    def retire(self, child: ChildHandle) -> None:
        """Let a child end in good order, beside its successor."""
        with self._lock:
            self._retired.append(child)
        child.leave(LEAVE_SECONDS)
        child.when_exited(lambda: self._forget(child))

    def buried(self, child: ChildHandle) -> None:
        """A child is dead. What it had started was killed with it, and is ours to reap."""
        child.close()
        self._strays.expect(child.pid)
        self._next_stray_look = min(self._next_stray_look, clock.monotonic() + SOON_SECONDS)
        self.limits.due(self._next_stray_look)

    def oom_happened(self, code: int | None) -> bool:
        """Whether a SIGKILL that was not ours is the kernel's, for want of memory."""
        if code != -9:
            return False
        former, self._oom_kills = self._oom_kills, kernel.oom_kills()
        return former is not None and self._oom_kills is not None and self._oom_kills > former

    def _choose(self) -> ProcessSlot:
        """A free slot, one whose child is up if there is one: used last, so its caches are warm."""
        if not self._free:
            raise ValueError(f"All {self.capacity} process slots are busy.")
        for index in range(len(self._free) - 1, -1, -1):
            if self._free[index].up:
                slot = self._free[index]
                del self._free[index]
                return slot
        return self._free.pop()

    def _knows(self, pid: int) -> bool:
        known = {slot.child.pid for slot in self._slots if slot.child is not None}
        known |= {child.pid for child in self._retired}
        return pid in known or pid == self.forkserver.pid

    def _look(self, now: float) -> float:
        nearest = min((slot.look(now) for slot in self._slots), default=inf)
        for child in list(self._retired):
            if now >= child.leave_deadline or now >= child.send_deadline:
                child.kill("leave")
                nearest = min(nearest, now + 1)
            else:
                nearest = min(nearest, child.leave_deadline)
        if now >= self._next_stray_look:
            self._strays.look(now)
            self._next_stray_look = now + LOOK_SECONDS
        return min(nearest, self._next_stray_look)

    def _forget(self, child: ChildHandle) -> None:
        with self._lock:
            if child in self._retired:
                self._retired.remove(child)
        self.buried(child)

    def _await_retired(self, seconds: float) -> None:
        deadline = clock.monotonic() + seconds
        for child in list(self._retired):
            child.await_exit(max(0.1, deadline - clock.monotonic()))
