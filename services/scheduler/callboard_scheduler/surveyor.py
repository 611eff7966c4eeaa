"""The surveyor: every queue's figures for `/metrics`, whoever holds its maintenance."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from callboard import clock
from callboard.catalog import presence, published
from callboard.maintenance.loops import known_queues
from callboard.maintenance.policy import PLATFORM_QUEUE
from callboard.maintenance.rules import Rules
from callboard.maintenance.sampler import figures
from callboard.metrics import Metrics
from callboard.storage.connection import Connection

INTERVAL_SECONDS = 5.0
#: How often the catalog and the workers are read: one call for each worker.
_CATALOG_SECONDS = 60.0


class Surveyor:
    """Shows the figures of all queues that have had a task or are in the catalog."""

    def __init__(self, connection: Connection, rules: Rules, metrics: Metrics) -> None:
        self._connection = connection
        self._rules = rules
        self._metrics = metrics
        self._published: set[str] = set()
        self._guests: Counter[str] = Counter()
        self._catalog_due = 0.0

    def survey(self) -> float:
        """Look at every queue; seconds until the next time. Raises StoreUnavailable."""
        keys = self._connection.keys
        now = clock.monotonic()
        if now >= self._catalog_due:
            self._published = self._connection.run(published.read(keys)).queue_names()
            workers = self._connection.run(presence.read(keys))
            self._guests = Counter(name for one in workers if not one.slots for name in one.queues)
            self._catalog_due = now + _CATALOG_SECONDS
        names = {*self._connection.run(known_queues(keys)), *self._published, PLATFORM_QUEUE}
        found = [
            self._connection.run(figures(keys, name, self._rules.wait_objective_seconds(name)))
            for name in sorted(names)
        ]
        self._metrics.snapshots.show_queues(replace(one, guests=self._guests[one.queue]) for one in found)
        return INTERVAL_SECONDS
