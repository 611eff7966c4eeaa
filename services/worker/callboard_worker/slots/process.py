"""Process slots: a warm child for each, which can be stopped whatever it does, alone."""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Sequence
from math import inf

from callboard import clock
from callboard.errors import CallboardError
from callboard_worker.slots import frame, kernel
from callboard_worker.slots.forkserver import Forkserver
from callboard_worker.slots.handle import ChildHandle
from callboard_worker.slots.limits import Limits, Stint
from callboard_worker.slots.poller import Poller
from callboard_worker.slots.slot import GRACE_SECONDS, Assignment, Listener, Outcome, Why
from callboard_worker.slots.strays import LOOK_SECONDS, Strays
from callboard_worker.slots.verdict import verdict

logger = logging.getLogger(__name__)

MEMORY_LOOK_SECONDS = 0.25
LEAVE_SECONDS = 10.0
"""How long the hooks of on_child_stop may take."""
_START_SECONDS = 120.0
_DUMP_SECONDS = 0.15
_PATIENT_STARTS = 3
_LONGEST_PAUSE_SECONDS = 30.0
_RETRY_AFTER_MS = 10_000


class _Slot:
    """One place for a child, the child, and the thread that reads it. Its lock guards what changes."""

    def __init__(self, group: ProcessSlots, name: str) -> None:
        self.group = group
        self.name = name
        self.lock = threading.Lock()
        self.child: ChildHandle | None = None
        self.up = False
        self.stint: Stint | None = None
        self.sent = False
        self.number = 0
        self.memory_at = inf
        self.dumped = False
        self.failures = 0
        self.thread: threading.Thread | None = None

    def want(self) -> None:
        """Have a child from now on."""
        if self.thread is None:
            self.thread = threading.Thread(target=self._serve, name=f"slot-{self.name}", daemon=True)
            self.thread.start()

    def give(self, stint: Stint) -> None:
        """Run this, now or when the child is up."""
        with self.lock:
            self.stint = stint
            self.sent = False
            if self.up:
                self._send(stint)
        self.want()

    def _send(self, stint: Stint) -> None:
        child = self.child
        assert child is not None
        self.sent = True
        self.dumped = False
        self.number += 1
        child.output.forget()
        deadline = stint.begin(self.group.grace_seconds, killable=True)
        if stint.assignment.memory_limit_bytes is not None:
            self.memory_at = stint.started + MEMORY_LOOK_SECONDS
            deadline = min(deadline, self.memory_at)
        if deadline != inf:
            self.group.limits.due(deadline)
        child.send(frame.pack(frame.RUN, self.number, frame.assignment_fields(stint.assignment)))

    # The thread.

    def _serve(self) -> None:
        while not self.group.closing.is_set():
            problem = self._life()
            if problem is None:
                self.failures = 0
                continue
            self.failures += 1
            logger.error("%s: no child could be started: %s", self.name, problem)
            if self.failures >= _PATIENT_STARTS:
                self._hand_back(problem)
            pause = min(_LONGEST_PAUSE_SECONDS, 0.1 * 3 ** min(self.failures, 8))
            self.group.closing.wait(pause * random.uniform(0.8, 1.2))

    def _life(self) -> str | None:
        """One child from fork to end; why it never got ready, if so."""
        try:
            child = ChildHandle(
                self.name,
                self.group.poller,
                self.group.forkserver,
                owner=self._owner,
                moved=self.group.limits.due,
            )
        except CallboardError as error:
            return str(error)
        with self.lock:
            self.child = child
        self.group.limits.due(child.started_at + _START_SECONDS)
        most = self.group.tasks_of_a_child()
        was_up = False
        problem = "it ended before it was ready"
        for batch in child.batches():
            for message in batch:
                if message[0] == frame.READY:
                    was_up = self._rise()
                elif message[0] == frame.UNREADY:
                    problem = str(message[1])
                elif message[0] == frame.DONE:
                    self._conclude(child, message, most)
                elif message[0] in (frame.LOGGED, frame.PROGRESSED):
                    self._report(message, batch)
            if not self._holds(child):
                break
        if self._holds(child):
            self._mourn(child, was_up=was_up)
        return None if was_up or self.group.closing.is_set() else f"{problem} ({self._end_of(child)})"

    def _rise(self) -> bool:
        with self.lock:
            self.up = True
            if self.stint is not None and not self.sent:
                self._send(self.stint)
        if self.group.closing.is_set():
            self.group.part(self)
        return True

    def _holds(self, child: ChildHandle) -> bool:
        return self.child is child

    def _report(self, message: frame.Frame, batch: list[frame.Frame]) -> None:
        stint = self.stint
        if stint is None or message[1] != self.number:
            return
        if message[0] == frame.LOGGED:
            stint.log(message[2], message[3])
        elif message is next(m for m in reversed(batch) if m[0] == frame.PROGRESSED):
            # Of reports that came together only the last one counts.
            stint.progress(message[2])

    def _conclude(self, child: ChildHandle, message: frame.Frame, most: float) -> None:
        stint = self.stint
        if stint is None or message[1] != self.number:
            return
        child.output.settle()
        outcome = frame.outcome_from(message[2])
        child.tasks += 1
        # A body that was struck by a stop may have left anything half done, and memory in pieces.
        spent = child.tasks >= most or stint.why is not None or outcome.kind == "memory"
        self._finish(stint, stint.told(outcome), keep=not spent)
        if spent:
            self.group.retire(child)

    def _mourn(self, child: ChildHandle, *, was_up: bool) -> None:
        """The child has died, or must: nothing comes from it any more."""
        code = child.await_exit(5.0)
        child.output.settle()
        stint = self.stint
        if stint is not None and self.sent:
            outcome = verdict(child, stint, code, oom_killed=self.group.oom_happened(code))
            self._finish(stint, outcome, keep=False)
        else:
            if was_up and not self.group.closing.is_set():
                logger.warning("%s: its idle child %s.", self.name, kernel.describe_exit(code))
            with self.lock:
                self.up = False
                self.child = None
        child.close()

    def _end_of(self, child: ChildHandle) -> str:
        return f"it {kernel.describe_exit(child.exit_code)}" if child.exited.is_set() else "it still ran"

    def _finish(self, stint: Stint, outcome: Outcome, *, keep: bool) -> None:
        with self.lock:
            if not keep:
                self.up = False
                self.child = None
            self.stint = None
            self.sent = False
            self.memory_at = inf
        if not stint.claim_end():
            return
        stint.hush()
        self.group.freed(self, stint, outcome)

    def _hand_back(self, problem: str) -> None:
        """Nobody can run this here: it goes back, and costs its task no attempt."""
        stint = self.stint
        if stint is not None and not self.sent:
            stint.log("error", f"This worker cannot start a child process: {problem}")
            outcome = Outcome("retry", retry_after_ms=_RETRY_AFTER_MS, counts=False)
            self._finish(stint, outcome, keep=False)

    def _owner(self) -> Stint | None:
        stint = self.stint
        return stint if self.sent else None

    # From other threads.

    def stop(self, task_id: str, why: Why, token: str | None) -> None:
        with self.lock:
            stint = self.stint
            if stint is None or stint.assignment.task_id != task_id:
                return
            if token is not None and stint.assignment.token != token:
                return
            if not stint.ask(why):
                return
            if self.sent:
                self._stop_body(stint, why)
                return
            self.stint = None
        if stint.claim_end():
            stint.hush()
            self.group.freed(self, stint, verdict(None, stint, None))

    def _stop_body(self, stint: Stint, why: Why) -> None:
        child = self.child
        assert child is not None
        if why in ("limit", "cancel"):
            stint.polite_at = inf
            stint.kill_at = min(stint.kill_at, clock.monotonic() + self.group.grace_seconds)
            self.group.limits.due(stint.kill_at)
            child.ask(self.number, why)
        else:
            child.kill(why)

    def look(self, now: float) -> float:
        """Act on what is due; the next deadline."""
        with self.lock:
            child, stint = self.child, self.stint
            if child is None:
                return inf
            nearest = inf
            if not self.up:
                nearest = child.started_at + _START_SECONDS
                if now >= nearest:
                    child.kill("start")
                    nearest = inf
            if now >= child.send_deadline:
                child.kill("deaf")
            else:
                nearest = min(nearest, child.send_deadline)
            if stint is not None and self.sent:
                nearest = min(nearest, self._look_at_body(child, stint, now))
            return nearest

    def _look_at_body(self, child: ChildHandle, stint: Stint, now: float) -> float:
        if now >= stint.kill_at:
            stint.ask("limit")
            if self.dumped:
                stint.kill_at = inf
                child.kill(stint.why or "limit")
            else:
                # First let it say where it is.
                self.dumped = True
                child.dump()
                stint.kill_at = now + _DUMP_SECONDS
            stint.polite_at = inf
        elif now >= stint.polite_at:
            stint.polite_at = inf
            if stint.ask("limit"):
                child.ask(self.number, "limit")
        if now >= self.memory_at:
            self.memory_at = now + MEMORY_LOOK_SECONDS
            used, limit = kernel.anonymous_bytes(child.pid), stint.assignment.memory_limit_bytes
            if used is not None and limit is not None and used > limit:
                self.memory_at = inf
                child.memory_used = used
                child.kill("memory")
        return min(stint.next_at, self.memory_at)


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
        self._slots = [_Slot(self, f"process-{number}") for number in range(capacity)]
        self._free: deque[_Slot] = deque(reversed(self._slots))
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
        self._forkserver = Forkserver(self._modules)
        self._forkserver.start()
        self._poller = Poller("slot-poller")
        self._next_stray_look = clock.monotonic() + LOOK_SECONDS
        self.limits.watch(self._look)
        self.limits.due(self._next_stray_look)
        if self._slots:
            self._slots[0].want()

    def ready(self) -> bool:
        return not self.closing.is_set() and any(slot.up for slot in self._slots)

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

    def freed(self, slot: _Slot, stint: Stint, outcome: Outcome) -> None:
        """A slot has a place again: report what it had."""
        with self._lock:
            self._free.append(slot)
        if self.closing.is_set():
            self.part(slot)
        try:
            self.listener.finished(slot.name, stint.assignment, outcome)
        except Exception:
            logger.exception("The outcome of task %s was not taken.", stint.assignment.task_id)

    def part(self, slot: _Slot) -> None:
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

    def oom_happened(self, code: int | None) -> bool:
        """Whether a SIGKILL that was not ours is the kernel's, for want of memory."""
        if code != -9:
            return False
        former, self._oom_kills = self._oom_kills, kernel.oom_kills()
        return former is not None and self._oom_kills is not None and self._oom_kills > former

    def _choose(self) -> _Slot:
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
            if child.exited.is_set():
                self._forget(child)
            elif now >= child.leave_deadline or now >= child.send_deadline:
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
        child.close()

    def _await_retired(self, seconds: float) -> None:
        deadline = clock.monotonic() + seconds
        for child in list(self._retired):
            child.await_exit(max(0.1, deadline - clock.monotonic()))
            self._forget(child)
