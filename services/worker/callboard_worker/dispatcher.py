"""The dispatcher: who gets a slot. It never lets more be claimed than can be started soon."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from callboard import clock
from callboard.catalog.resolution import ResolvedQueue
from callboard_worker.held import Held
from callboard_worker.slots.slot import SlotGroup

#: Held beyond the slots while bodies are this short (mean, ms): the next one starts without a round trip.
_EXTRA = ((1.0, 24), (5.0, 8))
_MEAN_WEIGHT = 0.05
_PATIENCE_SECONDS = 1.0
_LONG_MS = 1000.0
_SHORTEST_RECESS_SECONDS, _LONGEST_RECESS_SECONDS = 0.5, 60.0
_AWAY_MS = 2000


@dataclass(slots=True)
class Pool:
    """Slots that queues share: those for processes and threads are one pool, the event loop's another."""

    capacity: int
    busy: int = 0


@dataclass(slots=True)
class Lane:
    """One queue in this worker."""

    queue: ResolvedQueue
    group: SlotGroup
    pool: Pool
    backlog: deque[Held] = field(default_factory=deque)
    busy: int = 0
    mean_ms: float = _LONG_MS
    priority: int = 5
    mixed: int = 0

    def extra(self) -> int:
        """How many may be held beyond the slots. None where priorities mix: a late urgent task would wait."""
        if self.mixed > 0:
            return 0
        return next((extra for below, extra in _EXTRA if self.mean_ms < below), 0)


def away_ms() -> int:
    """When to come again with what has to run alone and cannot now: in two seconds, ± 50%."""
    return int(_AWAY_MS * random.uniform(0.5, 1.5))


class Dispatcher:
    """Starts claimed tasks in slots, in the order of the queues' precedence; the runner feeds it.

    `start`: puts one task into its slot; called under the dispatcher's lock.
    """

    def __init__(self, lanes: Mapping[str, Lane], start: Callable[[Lane, Held], None]) -> None:
        self.lanes = dict(lanes)
        self.draining = False
        # Claimed as a suspect: nothing more is claimed until it has ended.
        self._alone: Held | None = None
        self._alone_started = False
        self._recess_until = 0.0
        self._start = start
        self._lock = threading.RLock()

    def room(self, name: str) -> int:
        """How many tasks of a queue may be claimed now."""
        if self.draining or self._alone is not None:
            return 0
        with self._lock:
            lane = self.lanes[name]
            waiting = sum(len(other.backlog) for other in self.lanes.values() if other.pool is lane.pool)
            free = lane.pool.capacity - lane.pool.busy - waiting
            own = lane.queue.slots - lane.busy - len(lane.backlog)
            return max(0, min(free, own) + lane.extra())

    def accept(self, name: str, claimed: list[Held]) -> list[Held]:
        """Take what was claimed and start what fits; what has to go back, because only one can be alone.

        A suspect starts when everything else has ended, and nothing runs beside it: if it kills this worker
        too, it takes nobody along, and if it does not, another one was to blame. Then others have the slots
        for as long as it had them: a worker that died twice with a thousand tasks makes a thousand suspects.
        """
        turned_away: list[Held] = []
        with self._lock:
            lane = self.lanes[name]
            now = clock.monotonic()
            for held in claimed:
                held.accepted_at = now
                if held.suspect and (self._alone is not None or now < self._recess_until):
                    turned_away.append(held)
                    continue
                if held.suspect:
                    self._alone, self._alone_started = held, False
                    continue
                # Mixed priorities: nothing is held beyond the slots for the next thousand tasks.
                if held.priority != lane.priority:
                    lane.mixed, lane.priority = 1000, held.priority
                elif lane.mixed:
                    lane.mixed -= 1
                lane.backlog.append(held)
            self._fill()
        return turned_away

    def ended(self, held: Held, run_ms: float) -> None:
        """A slot is free again."""
        with self._lock:
            lane = self.lanes[held.queue]
            lane.busy -= 1
            lane.pool.busy -= 1
            lane.mean_ms += (run_ms - lane.mean_ms) * _MEAN_WEIGHT
            if held is self._alone:
                self._alone = None
                recess = min(_LONGEST_RECESS_SECONDS, max(_SHORTEST_RECESS_SECONDS, run_ms / 1000))
                self._recess_until = clock.monotonic() + recess
            self._fill()

    def overdue(self) -> list[Held]:
        """Take out what has waited for a slot too long: bodies have become long, and others may be idle."""
        if not self.waiting:
            return []
        late: list[Held] = []
        before = clock.monotonic() - _PATIENCE_SECONDS
        with self._lock:
            for lane in self.lanes.values():
                while lane.backlog and lane.backlog[0].accepted_at < before:
                    late.append(lane.backlog.popleft())
                    lane.mean_ms = max(lane.mean_ms, _LONG_MS)
        return late

    def drain(self) -> list[Held]:
        """Start nothing more; what was claimed and not started."""
        with self._lock:
            self.draining = True
            unstarted = [held for lane in self.lanes.values() for held in lane.backlog]
            for lane in self.lanes.values():
                lane.backlog.clear()
            if self._alone is not None and not self._alone_started:
                unstarted.append(self._alone)
                self._alone = None
            return unstarted

    def withdraw(self, held: Held) -> bool:
        """Take a task that has not started out of the backlog; whether it was there."""
        with self._lock:
            if held is self._alone and not self._alone_started:
                self._alone = None
                self._fill()
                return True
            try:
                self.lanes[held.queue].backlog.remove(held)
            except ValueError:
                return False
            return True

    @property
    def busy(self) -> int:
        """Tasks in slots."""
        return sum(lane.busy for lane in self.lanes.values())

    @property
    def waiting(self) -> int:
        """Tasks claimed and not started."""
        alone = self._alone is not None and not self._alone_started
        return sum(len(lane.backlog) for lane in self.lanes.values()) + alone

    def _fill(self) -> None:
        if self._alone is not None and self._alone_started:
            return
        for lane in self.lanes.values():
            while lane.backlog and lane.pool.busy < lane.pool.capacity and lane.busy < lane.queue.slots:
                self._run(lane, lane.backlog.popleft())
        alone = self._alone
        if alone is not None and self.busy == 0 and self.waiting == 1:
            self._alone_started = True
            self._run(self.lanes[alone.queue], alone)

    def _run(self, lane: Lane, held: Held) -> None:
        lane.busy += 1
        lane.pool.busy += 1
        self._start(lane, held)
