"""Deadlines of running attempts, and the one thread that looks after all of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from math import inf

from callboard import clock
from callboard_worker.slots.lines import LogBudget
from callboard_worker.slots.slot import Assignment, Kind, Listener, Outcome, TaskError, Why

logger = logging.getLogger(__name__)

_SHORTEST_PAUSE_SECONDS = 0.005
_STRENGTH: dict[Why | None, int] = {
    None: 0,
    "shutdown": 1,
    "limit": 2,
    "cancel": 3,
    "terminate": 4,
    "lost": 5,
}
KIND_OF_STOP: dict[Why, Kind] = {
    "shutdown": "failed",
    "limit": "timeout",
    "cancel": "cancelled",
    "terminate": "cancelled",
    "lost": "lost",
}


class Stint:
    """One attempt while it runs: its deadlines, why it is being stopped, and what it may still log."""

    __slots__ = (
        "_end",
        "_telling",
        "assignment",
        "budget",
        "kill_at",
        "listener",
        "over",
        "polite_at",
        "started",
        "why",
    )

    def __init__(self, assignment: Assignment, listener: Listener) -> None:
        self.assignment = assignment
        self.listener = listener
        self.budget = LogBudget()
        self.started = 0.0
        self.polite_at = inf
        self.kill_at = inf
        self.why: Why | None = None
        self.over = False
        self._end = [None]
        self._telling = 0

    def begin(self, grace: float, *, killable: bool) -> float:
        """Start the clock; returns the first deadline (monotonic seconds, inf if there is none).

        A killable body is asked to stop at its soft limit and killed at its hard one, or a grace period
        after the soft one. One that cannot be killed is asked at its only limit too, and given the
        grace period on top before it is given up.
        """
        assignment = self.assignment
        self.started = now = clock.monotonic()
        soft, hard = assignment.soft_limit_ms, assignment.hard_limit_ms
        if soft is not None:
            self.polite_at = now + soft / 1000
            self.kill_at = self.polite_at + grace
        if hard is not None:
            self.kill_at = now + hard / 1000
            if not killable:
                self.polite_at = min(self.polite_at, self.kill_at)
                self.kill_at += grace
        return self.next_at

    @property
    def next_at(self) -> float:
        """The next deadline."""
        return min(self.polite_at, self.kill_at)

    @property
    def stopping(self) -> Why | None:
        """The strongest stop that was asked for."""
        return self.why

    def ask(self, why: Why) -> bool:
        """Note that the body is to be stopped; True if that is new or stronger than what was asked before."""
        if _STRENGTH[why] <= _STRENGTH[self.why]:
            return False
        self.why = why
        return True

    def claim_end(self) -> bool:
        """True for exactly one caller: the one who reports how this attempt ended."""
        try:
            self._end.pop()
        except IndexError:
            return False
        return True

    @property
    def run_ms(self) -> int:
        """Milliseconds since the start."""
        return max(0, round((clock.monotonic() - self.started) * 1000)) if self.started else 0

    # What the body reports: the Sink of callboard.context.

    def log(self, level: str, text: str) -> None:
        # A listener that prints or logs does so in the body's context, and would come back here for ever.
        if self.over or self._telling == (ident := threading.get_ident()):
            return
        if (line := self.budget.admit(text)) is not None:
            self._telling = ident
            try:
                self.listener.logged(self.assignment, level, line)
            except Exception:
                logger.exception("A log line of task %s was not taken.", self.assignment.task_id)
            finally:
                self._telling = 0

    @property
    def full(self) -> bool:
        """Whether further lines need only be counted."""
        return self.over or self.budget.spent

    def drop(self, count: int) -> None:
        """Count lines that were dropped unread."""
        self.budget.dropped += count

    def progress(self, blob: bytes) -> None:
        if not self.over:
            self.listener.progressed(self.assignment, blob)

    def hush(self) -> None:
        """Let nothing through any more; tell of dropped lines first."""
        if not self.over:
            if (notice := self.budget.notice()) is not None:
                self.listener.logged(self.assignment, "warning", notice)
            self.over = True

    def told(self, outcome: Outcome) -> Outcome:
        """An outcome as it is reported: a stop is named with its limit rather than by its exception."""
        if self.why is None or outcome.kind not in ("timeout", "cancelled") or outcome.error is None:
            return outcome
        why: Why = (
            "limit" if outcome.kind == "timeout" else max("cancel", self.why, key=_STRENGTH.__getitem__)
        )
        error = self.stopped_error(why, killed=False)
        if error is None:
            return outcome
        return replace(outcome, error=replace(error, traceback=outcome.error.traceback))

    def stopped_error(self, why: Why, *, killed: bool) -> TaskError | None:
        """The error of an attempt that was stopped from outside, without any word of the body."""
        assignment = self.assignment
        match why:
            case "limit" if killed and assignment.hard_limit_ms is not None:
                text = f"The body ran longer than its hard limit of {_seconds(assignment.hard_limit_ms)}."
                return TaskError("HardLimitExceeded", text)
            case "limit":
                text = f"The body ran longer than its soft limit of {_seconds(assignment.soft_limit_ms)}"
                text += " and did not stop when asked." if killed else "."
                return TaskError("SoftLimitExceeded", text)
            case "cancel" if killed:
                return TaskError("Cancelled", "The body did not stop when it was cancelled.", retryable=False)
            case "cancel":
                return TaskError("Cancelled", "The task was cancelled while it ran.", retryable=False)
            case "shutdown":
                return TaskError("Shutdown", "The worker was told to stop while the task ran.")
            case "terminate":
                return TaskError("Terminated", "The task was terminated while it ran.", retryable=False)
            case _:
                return None


def _seconds(milliseconds: int | None) -> str:
    return "no time" if milliseconds is None else f"{milliseconds / 1000:g} s"


class Limits:
    """One thread for the deadlines of all slots. It sleeps until the nearest one, so idling costs nothing.

    A source is called with the monotonic time, acts on what is due and returns its next deadline. It must
    have stored a deadline before it calls `due`.
    """

    def __init__(self) -> None:
        self._sources: list[Callable[[float], float]] = []
        self._nearest = inf
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, source: Callable[[float], float]) -> None:
        """Ask `source` whenever something is due."""
        with self._lock:
            self._sources.append(source)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="slot-limits", daemon=True)
                self._thread.start()

    def unwatch(self, source: Callable[[float], float]) -> None:
        """Ask it no more."""
        with self._lock:
            if source in self._sources:
                self._sources.remove(source)

    def due(self, at: float) -> None:
        """A deadline at `at` exists. One comparison unless it is the nearest."""
        if at < self._nearest:
            with self._lock:
                self._nearest = min(self._nearest, at)
            self._wake.set()

    def close(self) -> None:
        """End the thread. Deadlines are no longer kept."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)

    def _run(self) -> None:
        while not self._closed:
            with self._lock:
                # Everything that comes up during the round is nearer than this, and so wakes the next one.
                self._nearest = inf
                self._wake.clear()
                sources = tuple(self._sources)
            now = clock.monotonic()
            nearest = inf
            for source in sources:
                try:
                    nearest = min(nearest, source(now))
                except Exception:
                    logger.exception("A look at the limits failed; it is repeated in a second.")
                    nearest = min(nearest, now + 1)
            with self._lock:
                self._nearest = min(self._nearest, nearest)
                pause = self._nearest - clock.monotonic()
            if self._closed:
                return
            self._wake.wait(None if pause == inf else max(pause, _SHORTEST_PAUSE_SECONDS))
