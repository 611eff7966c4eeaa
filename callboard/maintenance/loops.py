"""The maintenance of queues: one thread that runs every loop for the queues whose lease it holds.

The scheduler runs it for all queues, each worker for its own, so that a program without a scheduler is served
too. It never raises: an outage of Redis is waited out, a fault in one loop is logged and tried again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from callboard import clock
from callboard.errors import StoreUnavailable
from callboard.maintenance import lease
from callboard.maintenance.courier import Courier, Deliver
from callboard.maintenance.fate import Fates, by_note
from callboard.maintenance.librarian import Librarian
from callboard.maintenance.policy import PLATFORM_QUEUE, Policy
from callboard.maintenance.promoter import Promoter
from callboard.maintenance.pruner import Pruner
from callboard.maintenance.rescuer import Rescuer
from callboard.maintenance.rounds import Rounds, backoff
from callboard.maintenance.rules import Rules
from callboard.maintenance.sweeper import Sweeper
from callboard.maintenance.watch import Watch
from callboard.storage.connection import Connection
from callboard.storage.keys import Keys
from callboard.storage.operation import Command, Operation

logger = logging.getLogger(__name__)

_LONGEST_SLEEP_SECONDS = 1.0
_QUEUES_SECONDS = 2.0
#: The holder renews in good time; the others look in as often, so that a dead holder is followed within 8 s.
_LEASE_TURN_SECONDS = lease.LEASE_SECONDS / 2


class Result(Protocol):
    """What a loop did."""

    @property
    def again_seconds(self) -> float | None:
        """When to run again, if before the interval; 0: at once."""
        ...


class Loop(Protocol):
    """One duty for one queue, in bounded steps that are safe to repeat and to overlap."""

    name: str
    interval_seconds: float

    def run_once(self, connection: Connection, queue: str) -> Result:
        """Do one step."""
        ...


@dataclass(slots=True)
class _Charge:
    """A queue in our care. Times are on the monotonic clock."""

    held_until: float = 0.0
    lease_due: float = 0.0
    due: dict[str, float] = field(default_factory=dict)
    failures: int = 0
    not_before: float = 0.0


class Loops:
    """Runs the loops in one thread, under a lease for each queue.

    Parameters:
        connection: shared with the rest of the process.
        holder: this process's id, a worker's where there is one; no spaces.
        policy: the rules; a queue's declaration in the catalog overrides lease and retention.
        queues: which queues to care for, asked again every 2 s; None: every queue that Redis knows.
        deliver: delivers outbox items (`courier.Deliver`); without it no courier runs here.
        fates: judges workers that vanished; by default by their own notes.
    """

    def __init__(
        self,
        connection: Connection,
        holder: str,
        *,
        policy: Policy | None = None,
        queues: Callable[[], Iterable[str]] | None = None,
        deliver: Deliver | None = None,
        fates: Fates = by_note,
    ) -> None:
        self.connection = connection
        self.holder = holder
        #: What holds for each queue, and its wait objective.
        self.rules = Rules(policy or Policy())
        self.watch = Watch()
        self.courier = Courier(deliver) if deliver else None
        self._rescuer = Rescuer(self.watch, self.rules, fates=fates)
        self._set_pace()
        self.loops: Sequence[Loop] = [
            Promoter(),
            self._rescuer,
            *([self.courier] if self.courier else []),
            Pruner(self.rules),
            Sweeper(self.rules),
            Librarian(),
        ]
        self._queues = queues
        self._charges: dict[str, _Charge] = {}
        self._queues_due = 0.0
        self._watch_due = 0.0
        self._nudged: set[str] = set()
        self._rounds = Rounds("Maintenance", self._round, last=self._release)

    def start(self) -> None:
        """Start the thread; from now on Redis is watched."""
        self._rounds.start()

    def ask_to_stop(self) -> None:
        """Let the round that runs be the last; does not wait."""
        self._rounds.ask_to_stop()

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread and give the leases up. Returns after `timeout` seconds at the latest."""
        self._rounds.stop(timeout)

    def alive(self, within_seconds: float = 60.0) -> bool:
        """Whether the thread has made a round lately; says nothing about Redis."""
        return self._rounds.alive(within_seconds)

    @property
    def reachable(self) -> bool:
        """Whether the last round found Redis."""
        return self._rounds.reachable

    @property
    def ticks(self) -> int:
        """Rounds so far, failed ones included."""
        return self._rounds.ticks

    def nudge(self, queue: str) -> None:
        """Something was put into `queue`'s outbox: deliver it soon, whoever holds the lease."""
        if self.courier and queue not in self._nudged:
            self._nudged.add(queue)
            self._rounds.wake()

    def _round(self) -> float:
        """Do what is due; seconds until there is more. Raises StoreUnavailable when nothing can be done."""
        self._observe()
        self._refresh()
        for queue in [*self._nudged]:
            self._nudged.discard(queue)
            if self.courier:
                self._step(self.courier, queue, _Charge())
        soonest = clock.monotonic() + _LONGEST_SLEEP_SECONDS
        for queue, charge in self._charges.items():
            if self._rounds.stopping:
                break
            self._rounds.beat()
            self._observe()
            soonest = min(soonest, self._care_for(queue, charge))
        soonest = min(soonest, self._watch_due)
        return max(0.0, soonest - clock.monotonic())

    def _observe(self) -> None:
        if clock.monotonic() >= self._watch_due:
            self._watch_due = clock.monotonic() + self.watch.interval_seconds
            self.watch.observe(self.connection)

    def _refresh(self) -> None:
        now = clock.monotonic()
        if now < self._queues_due:
            return
        self._queues_due = now + _QUEUES_SECONDS
        try:
            wanted = self._wanted()
            self.rules.read(self.connection, wanted)
        except StoreUnavailable:
            self._queues_due = now
            # On a cluster the node of these keys may be away while the queues' are not.
            if not (self._charges and self.connection.address.kind == "cluster"):
                raise
            return
        self._set_pace()
        for name in wanted - self._charges.keys():
            self._charges[name] = _Charge()
        for name in self._charges.keys() - wanted:
            del self._charges[name]  # its lease runs out

    def _set_pace(self) -> None:
        # A lease of a second needs a closer look than one of twenty.
        shortest = self.rules.shortest_lease_seconds
        self.watch.interval_seconds = min(1.0, max(0.05, shortest / 20))
        self._rescuer.interval_seconds = min(2.0, max(0.1, shortest / 10))

    def _wanted(self) -> set[str]:
        if self._queues is not None:
            return set(self._queues())
        return {*self.connection.run(known_queues(self.connection.keys)), PLATFORM_QUEUE}

    def _care_for(self, queue: str, charge: _Charge) -> float:
        """Run the loops of one queue that are due; when (monotonic) there is more to do."""
        now = clock.monotonic()
        if now < charge.not_before:
            return charge.not_before
        try:
            if now >= charge.lease_due:
                self._renew(queue, charge)
            if clock.monotonic() < charge.held_until:
                for loop in self.loops:
                    if clock.monotonic() >= charge.due.get(loop.name, 0.0):
                        self._step(loop, queue, charge)
            charge.failures = 0
        except StoreUnavailable:
            # On a cluster one node may be away: its queues wait, the others are cared for.
            if self.connection.address.kind != "cluster":
                raise
            return self._set_aside(charge)
        except Exception:
            logger.exception("Maintenance of queue %s failed; it is tried again.", queue)
            return self._set_aside(charge)
        if clock.monotonic() >= charge.held_until:
            return charge.lease_due
        return min(charge.lease_due, *charge.due.values())

    def _set_aside(self, charge: _Charge) -> float:
        charge.failures += 1
        charge.not_before = clock.monotonic() + backoff(charge.failures)
        return charge.not_before

    def _renew(self, queue: str, charge: _Charge) -> None:
        asked = clock.monotonic()
        held = self.connection.run(lease.take(self.connection.keys, queue, self.holder))
        charge.held_until = asked + lease.LEASE_SECONDS if held else 0.0
        charge.lease_due = asked + _LEASE_TURN_SECONDS * random.uniform(0.8, 1.0)

    def _step(self, loop: Loop, queue: str, charge: _Charge) -> None:
        """One step of one loop. Raises StoreUnavailable; any other failure is logged and tried again."""
        begun = clock.monotonic()
        again: float | None = None
        try:
            again = loop.run_once(self.connection, queue).again_seconds
        except StoreUnavailable:
            raise
        except Exception:
            logger.exception("The %s failed on queue %s; it tries again.", loop.name, queue)
        pause = loop.interval_seconds if again is None else min(again, loop.interval_seconds)
        charge.due[loop.name] = begun + pause

    def _release(self) -> None:
        for queue, charge in self._charges.items():
            if clock.monotonic() < charge.held_until:
                try:
                    self.connection.run(lease.let_go(self.connection.keys, queue, self.holder))
                except Exception as error:
                    logger.debug("The lease on %s runs out by itself: %s", queue, error)
                    return


def known_queues(keys: Keys) -> Operation[list[str]]:
    """The names of all queues that have had a task, sorted."""
    names: Any = yield Command("SMEMBERS", keys.queues)
    return sorted(name.decode() for name in names)
