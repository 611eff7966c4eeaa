"""The pump: takes turns with Redis for all of a worker's queues, one at a time.

It has a thread. Only the turn for a wake token that finds that thread asleep is taken by the waiter that
brings it: one change of threads less between a submit and its body.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from callboard import clock
from callboard.broker import turn
from callboard.broker.turn import FLUSH_BYTES, FLUSH_TASKS, Answer, Claim, Ending, TurnReply
from callboard.errors import CallboardError, StoreUnavailable
from callboard.storage.connection import Connection
from callboard.storage.faults import StoreRefused
from callboard.submit import new_nonce
from callboard_worker.held import Held

logger = logging.getLogger(__name__)

#: While work is waiting locally, a lone finish waits this long for company.
_LINGER_SECONDS = 0.001
_LINGER_COMPANY = 8
_SHORTEST_SLEEP = 0.01
_TICK_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 1.0
#: A finish that Redis refuses (not: cannot take now) is tried this often, then left to the rescuer.
_REFUSALS = 3
_REFUSED_SECONDS = 0.1


class Finished(NamedTuple):
    """A decided end that Redis has not confirmed yet; `held` None for a claim that could not be started."""

    ending: Ending
    held: Held | None


class Owner(Protocol):
    """The runner, as the pump sees it. Called from the pump's thread."""

    def room(self, queue: str) -> int:
        """How many tasks of a queue may be claimed now."""

    @property
    def waiting(self) -> int:
        """Tasks claimed and not started."""

    def claimed(self, queue: str, claims: list[Claim]) -> None:
        """Tasks that are ours now."""

    def recorded(self, queue: str, finished: Finished, answer: Answer) -> None:
        """An end that Redis has answered."""

    def quiet(self, queue: str) -> None:
        """Nothing is ready in the queue: listen for its wake tokens."""

    def tidy(self) -> None:
        """Comes about once a second."""


@dataclass(slots=True)
class _Queue:
    done: deque[Finished] = field(default_factory=deque)
    hot: bool = True
    due: float | None = None
    nonce: str = ""
    lease_ms: int = 20_000
    failures: int = 0
    not_before: float = 0.0


class Pump:
    """Flushes ends in groups of up to 64 tasks or 256 KiB, and claims in the same round trips.

    `queues`: name and lease in ms, in order of precedence. `ticked`: monotonic time of the last round.
    """

    def __init__(
        self, connection: Connection, worker: str, queues: Sequence[tuple[str, int]], owner: Owner
    ) -> None:
        self._connection = connection
        self._worker = worker
        self._owner = owner
        self._queues = {name: _Queue(lease_ms=lease_ms) for name, lease_ms in queues}
        self._cv = threading.Condition()
        self._turning = threading.Lock()
        self._asleep = False
        self._stopping = False
        # One server: what it refuses to one queue it refuses to all. A cluster's nodes fail one by one.
        self._apart = connection.address.kind == "cluster"
        self._refusals: dict[str, int] = {}
        self._claims = 0
        self._tidy_due = self._nap_ends = 0.0
        self._thread = threading.Thread(target=self._run, name="pump", daemon=True)
        self.ticked = clock.monotonic()

    def start(self) -> None:
        """Start the thread."""
        self.ticked = clock.monotonic()
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Flush what is done, then end; whether everything was recorded within `timeout` seconds."""
        with self._cv:
            self._stopping = True
            self._cv.notify()
        self._thread.join(timeout)
        return not self.unrecorded

    @property
    def unrecorded(self) -> int:
        """Ends that Redis has not confirmed."""
        return sum(len(state.done) for state in self._queues.values())

    @property
    def failing(self) -> bool:
        """Whether the last turn of a queue met an error."""
        return any(state.failures for state in self._queues.values())

    def done(self, queue: str, finished: Finished) -> None:
        """Record an end with one of the next turns. From any thread; does not block."""
        self._queues[queue].done.append(finished)
        if self._asleep:
            with self._cv:
                self._cv.notify()

    def wake(self, queue: str) -> bool:
        """Something may be ready; False when there is no room for it (pass the token on)."""
        state = self._queues[queue]
        state.hot = True
        if self._owner.room(queue) <= 0:
            return False
        taken = self._asleep and self._turning.acquire(blocking=False)
        if taken:
            try:
                self._try(queue, state)
            finally:
                self._turning.release()
        with self._cv:
            # The thread would find nothing to do, and the body would wait for the interpreter meanwhile.
            if not (taken and self._rests(state)):
                self._cv.notify()
        return True

    def _rests(self, state: _Queue) -> bool:
        """Whether the queue needs nothing before the nap ends that the thread is in."""
        busy = state.hot or state.done or state.nonce or state.failures or self._stopping
        return not busy and (state.due is None or state.due >= self._nap_ends)

    def look(self) -> None:
        """A slot has become free."""
        if self._asleep:
            with self._cv:
                self._cv.notify()

    def _run(self) -> None:
        while True:
            self._sleep()
            self.ticked = clock.monotonic()
            with self._turning:
                # Asked in here: a waiter's turn that is under way may bring tasks that have to go back.
                if self._finished:
                    return
                for name, state in self._queues.items():
                    self._try(name, state)

    def _try(self, name: str, state: _Queue) -> None:
        try:
            if self._wants(name, state):
                self._turn(name, state)
        except Exception as error:
            self._failed(name, state, error)

    @property
    def _finished(self) -> bool:
        return self._stopping and not any(q.done or q.nonce for q in self._queues.values())

    def _failed(self, name: str, state: _Queue, error: Exception) -> None:
        if not isinstance(error, CallboardError):
            logger.error("A turn of queue %s failed.", name, exc_info=error)
        elif not self.failing:
            # A user or password that is refused now, too: somebody is changing it, and what is held stays.
            logger.warning("%s The worker keeps what it holds and goes on trying.", error)
        state.failures += 1
        not_before = clock.monotonic() + min(_LONGEST_BACKOFF_SECONDS, 0.05 * 2 ** min(state.failures, 10))
        alike = isinstance(error, StoreUnavailable) and not self._apart
        for other in self._queues.values() if alike else (state,):
            other.not_before = not_before

    def _wants(self, name: str, state: _Queue) -> bool:
        now = clock.monotonic()
        if now < state.not_before:
            return False
        if state.done or state.nonce:
            return True
        if state.due is not None and now >= state.due:
            state.due, state.hot = None, True
        return state.hot and not self._stopping and self._owner.room(name) > 0

    def _sleep(self) -> None:
        """Until there is something to do."""
        lingered = False
        with self._cv:
            self._asleep = True
            try:
                while True:
                    self._tidy()
                    wanted = [n for n, q in self._queues.items() if not q.done and self._wants(n, q)]
                    if wanted or self._finished:
                        return
                    now = clock.monotonic()
                    done = sum(len(q.done) for q in self._queues.values() if now >= q.not_before)
                    at_once = lingered or self._stopping or done >= _LINGER_COMPANY
                    if done and (at_once or not self._owner.waiting):
                        return
                    if done:
                        lingered = True
                        self._nap_ends = now + _LINGER_SECONDS
                        self._cv.wait(_LINGER_SECONDS)
                        continue
                    self.ticked = clock.monotonic()
                    nap = self._nap()
                    self._nap_ends = self.ticked + nap
                    self._cv.wait(nap)
            finally:
                self._asleep = False

    def _tidy(self) -> None:
        if clock.monotonic() >= self._tidy_due:
            self._tidy_due = clock.monotonic() + _TICK_SECONDS / 2
            self._owner.tidy()

    def _nap(self) -> float:
        now = clock.monotonic()
        dues = [
            state.due - now
            for name, state in self._queues.items()
            if state.due is not None and self._owner.room(name) > 0
        ]
        dues += [state.not_before - now for state in self._queues.values() if state.not_before > now]
        return max(0.0005, min([_TICK_SECONDS, *dues]))

    def _turn(self, name: str, state: _Queue) -> None:
        batch = self._batch(state)
        want = 0
        if state.nonce or (state.hot and not self._stopping):
            want = min(turn.CLAIM_TASKS, self._owner.room(name))
            if state.nonce:
                want = max(1, want)  # its tasks may be ours already: ask until we know
        if want:
            state.nonce = state.nonce or self._numbered()
            # From here on: a token that comes while the turn is under way speaks of work that it may not see.
            state.hot = False
        try:
            reply = self._connection.run(
                turn.turn(
                    self._connection.keys,
                    name,
                    self._worker,
                    endings=[finished.ending for finished in batch],
                    want=want,
                    nonce=state.nonce,
                    lease_ms=state.lease_ms,
                )
            )
        except Exception as error:
            state.hot = state.hot or want > 0
            if isinstance(error, StoreRefused):
                self._refused(name, state, batch, error)
                return
            state.done.extendleft(reversed(batch))
            raise
        self._answered(state)
        if reply.left > 0 and not reply.paused:
            state.hot = True
        try:
            if want:
                self._claimed(name, state, reply)
        finally:
            for finished, answer in zip(batch, reply.answers, strict=True):
                self._owner.recorded(name, finished, answer)

    def _answered(self, state: _Queue) -> None:
        if not self.failing:
            return
        for other in (state,) if self._apart else self._queues.values():
            other.failures, other.not_before = 0, 0.0
        if not self.failing:
            logger.info("Redis answers again.")

    def _claimed(self, name: str, state: _Queue, reply: TurnReply) -> None:
        state.nonce = ""
        state.due = self._due(reply.next_due_ms)
        if reply.claims:
            self._owner.claimed(name, reply.claims)
        if not state.hot:
            self._owner.quiet(name)

    def _numbered(self) -> str:
        # The number tells the store which claim is the newer one, should the older come late.
        self._claims += 1
        return f"{self._claims}:{new_nonce()}"

    def _due(self, next_due_ms: int | None) -> float | None:
        if next_due_ms is None:
            return None
        return clock.monotonic() + max(_SHORTEST_SLEEP / 10, next_due_ms / 1000)

    def _batch(self, state: _Queue) -> list[Finished]:
        batch: list[Finished] = []
        size = 0
        while state.done and len(batch) < FLUSH_TASKS:
            size += len(state.done[0].ending.packed)
            if batch and size > FLUSH_BYTES:
                break
            batch.append(state.done.popleft())
        return batch

    def _refused(self, name: str, state: _Queue, batch: list[Finished], error: StoreRefused) -> None:
        """Redis refuses the turn itself: find the operation that it refuses, one by one."""
        logger.error("Redis refused a turn of queue %s: %s", name, error)
        state.nonce = ""
        for finished in batch:
            operation = turn.turn(self._connection.keys, name, self._worker, endings=[finished.ending])
            try:
                [answer] = self._connection.run(operation).answers
            except StoreRefused:
                self._give_up(name, state, finished)
            except Exception:
                state.done.append(finished)
            else:
                self._owner.recorded(name, finished, answer)
        state.failures += 1
        state.not_before = clock.monotonic() + _REFUSED_SECONDS

    def _give_up(self, name: str, state: _Queue, finished: Finished) -> None:
        token = finished.ending.token
        self._refusals[token] = self._refusals.get(token, 0) + 1
        if self._refusals[token] < _REFUSALS:
            state.done.append(finished)
            return
        del self._refusals[token]
        logger.error("The end of %s_%s is refused for good; its lease runs out.", name, finished.ending.local)
        self._owner.recorded(name, finished, "lost")
