"""The rescuer: tasks whose worker died, or lost touch, run again."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from callboard.catalog import origin, presence
from callboard.maintenance.fate import Fate, Fates, by_note
from callboard.maintenance.policy import Policies
from callboard.maintenance.watch import Watch
from callboard.storage.connection import Connection
from callboard.storage.keys import Keys
from callboard.storage.operation import Operation, ScriptCall
from callboard.storage.scripts import script

_EXPIRED = script("callboard.maintenance", "expired")
_RESCUE = script("callboard.maintenance", "rescue")
#: Leases judged in one step.
STEP = 50
#: When to ask again for a fate that is not known yet.
_PENDING_SECONDS = 0.2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rescued:
    """What became of expired leases: counts by the state that they ended in (queued, failed, cancelled).

    `held_back`: Redis has not been healthy for a whole lease, so nothing was judged. `pending`: the fate of a
    worker is being looked into.
    """

    states: Mapping[str, int] = field(default_factory=dict)
    held_back: bool = False
    pending: bool = False

    @property
    def again_seconds(self) -> float | None:
        """When to look again, if before the loop's interval."""
        if sum(self.states.values()) >= STEP:
            return 0.0
        return _PENDING_SECONDS if self.pending else None


@dataclass(frozen=True, slots=True)
class Expired:
    """A lease that has run out, `since_ms` ago."""

    id: str
    token: bytes
    worker: str
    since_ms: int


class Rescuer:
    """Returns expired leases to the queue, or fails those that expired too often.

    A vanished worker (its presence has gone) makes it a lost attempt, unless `fates` knows that it was
    somebody else's doing. A worker that is present may still renew: it gets a quarter of a lease more, and
    its lost lease costs no attempt.
    """

    name = "rescuer"

    def __init__(
        self, watch: Watch, policies: Policies, interval_seconds: float = 2.0, fates: Fates = by_note
    ) -> None:
        self.interval_seconds = interval_seconds
        self._fates = fates
        self._watch = watch
        self._policies = policies

    def run_once(self, connection: Connection, queue: str) -> Rescued:
        """Judge at most 50 leases. Raises StoreUnavailable."""
        policy = self._policies(queue)
        if not self._watch.steady_for(connection, queue, policy.lease_seconds):
            return Rescued(held_back=True)
        patience_ms = policy.lease_seconds * 1000 / 4
        keys = connection.keys
        expired = connection.run(read_expired(keys, queue))
        alive = {
            worker: connection.run(presence.alive(keys, worker))
            for worker in {lease.worker for lease in expired if lease.worker}
        }
        fates = {worker: self._fate(connection, worker) for worker, lives in alive.items() if not lives}
        unknown = {worker for worker, fate in fates.items() if fate is None}
        dead = {worker: fate for worker, fate in fates.items() if fate is not None}
        ripe = [
            lease
            for lease in expired
            if lease.worker not in unknown and (not alive.get(lease.worker) or lease.since_ms >= patience_ms)
        ]
        if not ripe:
            return Rescued(pending=bool(unknown))
        # An outage or a step of the clock may have come between the last look at Redis's health and this one
        # at the leases: then it is they that are wrong.
        self._watch.observe(connection)
        if not self._watch.steady_for(connection, queue, policy.lease_seconds):
            return Rescued(held_back=True)
        states = connection.run(rescue(keys, queue, ripe, dead, policy.losses))
        became: dict[str, Counter[str]] = {}
        for lease, state in zip(ripe, states, strict=True):
            if state:
                became.setdefault(lease.worker, Counter())[state] += 1
                logger.debug("Rescued %s_%s: %s.", queue, lease.id, state)
        for worker, counts in became.items():
            logger.warning(
                "Rescued tasks of queue %s from worker %s, which %s: %s.",
                queue,
                worker or "unknown",
                _what(dead.get(worker)),
                ", ".join(f"{count} {state}" for state, count in sorted(counts.items())),
            )
        return Rescued(sum(became.values(), Counter()), pending=bool(unknown))

    def _fate(self, connection: Connection, worker: str) -> Fate | None:
        return self._fates(worker, connection.run(origin.read(connection.keys, worker)))


def _what(fate: Fate | None) -> str:
    if fate is None:
        return "did not renew their leases"
    return f"vanished ({fate.cause})" if fate.cause else "vanished"


def read_expired(keys: Keys, queue: str, limit: int = STEP) -> Operation[list[Expired]]:
    """The leases of `queue` that ran out first, at most `limit` (50)."""
    rows = yield ScriptCall(_EXPIRED, keys.queue(queue).prefix, (limit,))
    return [Expired(task.decode(), token, worker.decode(), since) for task, token, worker, since in rows]


def rescue(
    keys: Keys, queue: str, leases: Iterable[Expired], dead: Mapping[str, Fate], losses: int = 3
) -> Operation[list[str]]:
    """Rescue `leases` (at most 50) that are still expired and still theirs; "" for the others.

    `dead`: workers whose presence has gone, and their fate. The caller has seen Redis healthy for a lease.
    """
    fours: list[str | bytes] = []
    for lease in leases:
        fate = dead.get(lease.worker)
        verdict, cause = ("present", "") if fate is None else (fate.costs, fate.cause)
        fours += (lease.id, lease.token, verdict, cause)
    states = yield ScriptCall(_RESCUE, keys.queue(queue).prefix, (losses, *fours))
    return [state.decode() for state in states]
