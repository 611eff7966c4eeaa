"""One process slot: its child, the attempt that runs in it, and the thread that reads what the child says."""

from __future__ import annotations

import json
import logging
import random
import threading
from dataclasses import replace
from math import inf
from typing import Protocol

from callboard import clock
from callboard.errors import CallboardError
from callboard_worker.slots import frame, kernel
from callboard_worker.slots.forkserver import Forkserver
from callboard_worker.slots.handle import ChildHandle
from callboard_worker.slots.limits import Limits, Stint
from callboard_worker.slots.poller import Poller
from callboard_worker.slots.slot import Outcome, Why
from callboard_worker.slots.verdict import verdict

logger = logging.getLogger(__name__)

MEMORY_LOOK_SECONDS = 0.25
START_SECONDS = 120.0
_DUMP_SECONDS = 0.15
_PATIENT_STARTS = 3
_LONGEST_PAUSE_SECONDS = 30.0
_RETRY_AFTER_MS = 10_000


class Group(Protocol):
    """What a slot needs of its group."""

    grace_seconds: float
    limits: Limits
    closing: threading.Event

    @property
    def poller(self) -> Poller: ...

    @property
    def forkserver(self) -> Forkserver: ...

    def tasks_of_a_child(self) -> float:
        """How many tasks the next child may run."""

    def freed(self, slot: ProcessSlot, stint: Stint, outcome: Outcome) -> None:
        """A slot has a place again: report what it had."""

    def part(self, slot: ProcessSlot) -> None:
        """Let an idle child go, and hand back what no child has begun."""

    def retire(self, child: ChildHandle) -> None:
        """Let a child end in good order."""

    def buried(self, child: ChildHandle) -> None:
        """A child is dead."""

    def oom_happened(self, code: int | None) -> bool:
        """Whether a SIGKILL that was not ours is the kernel's, for want of memory."""


class ProcessSlot:
    """One place for a child, the child, and the thread that reads it. Its lock guards what changes."""

    def __init__(self, group: Group, name: str) -> None:
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

    @property
    def hopeless(self) -> bool:
        """Whether no child could be started for a while now."""
        return self.failures >= _PATIENT_STARTS

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
        # If this one has just died, the next child runs it: no attempt is lost on a body that never began.
        self.sent = child.send(frame.pack(frame.RUN, self.number, frame.assignment_fields(stint.assignment)))

    # The thread.

    def _serve(self) -> None:
        while not self.group.closing.is_set():
            try:
                problem = self._life()
            except Exception as error:
                logger.exception("%s: the thread of this slot failed; it starts over.", self.name)
                problem = f"{type(error).__name__}: {error}"
                self._abandon()
            if problem is None:
                self.failures = 0
                continue
            self.failures += 1
            logger.error("%s: no child could be started: %s", self.name, problem)
            if self.hopeless:
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
        self.group.limits.due(child.started_at + START_SECONDS)
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
                elif message[0] in (frame.LOGGED, frame.PROGRESSED, frame.DROPPED):
                    self._report(message, batch)
            if not self._holds(child):
                break
        if self._holds(child):
            self._mourn(child, was_up=was_up)
        return None if was_up or self.group.closing.is_set() else f"{problem} ({self._end_of(child)})"

    def _abandon(self) -> None:
        child = self.child
        if child is not None:
            child.kill("garbled")
            self._mourn(child, was_up=False)

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
        elif message[0] == frame.DROPPED:
            stint.drop(message[2])
        elif message is next(m for m in reversed(batch) if m[0] == frame.PROGRESSED):
            # Of reports that came together only the last one counts.
            stint.progress(message[2])

    def _conclude(self, child: ChildHandle, message: frame.Frame, most: float) -> None:
        stint = self.stint
        if stint is None or message[1] != self.number:
            return
        child.output.settle()
        outcome = frame.outcome_from(message[2])
        if stint.assignment.message is not None and outcome.result is not None:
            # Dramatiq's hooks in the worker take the value itself.
            outcome = replace(outcome, value=json.loads(outcome.result))
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
        self.group.buried(child)

    def _end_of(self, child: ChildHandle) -> str:
        if child.killed_for == "start":
            return f"it was not ready within {START_SECONDS:g} s"
        return f"it {kernel.describe_exit(child.exit_code)}" if child.exited.is_set() else "it still ran"

    def _finish(self, stint: Stint, outcome: Outcome, *, keep: bool) -> None:
        with self.lock:
            if not keep:
                self.up = False
                self.child = None
            if self.stint is not stint:
                return
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
            if why == "shutdown" and not self.sent:
                why = "lost"  # nobody has begun it, so it goes back
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
        if why == "shutdown":
            child.ask(self.number, why)
        elif why in ("limit", "cancel"):
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
                nearest = child.started_at + START_SECONDS
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
