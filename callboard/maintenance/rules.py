"""The rules of each queue: the settings', and what its declaration says otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from callboard.catalog.published import PublishedQueue, read_queues
from callboard.maintenance.policy import Policy
from callboard.storage.connection import Connection


class Rules:
    """Policies by queue: call it with a queue's name. `read` fetches what the catalog says of queues."""

    def __init__(self, settings: Policy) -> None:
        self.settings = settings
        self._declared: Mapping[str, PublishedQueue] = {}

    def __call__(self, queue: str) -> Policy:
        declared = self._declared.get(queue)
        if declared is None:
            return self.settings
        policy = self.settings
        if declared.lease_ms is not None:
            policy = replace(policy, lease_seconds=declared.lease_ms / 1000)
        if declared.retention_ms is not None:
            policy = replace(policy, completed_ms=declared.retention_ms, failed_ms=declared.retention_ms)
        return policy

    def wait_objective_seconds(self, queue: str) -> float | None:
        """How long a task of `queue` should wait at most; None: its declaration says nothing."""
        declared = self._declared.get(queue)
        if declared is None or declared.wait_objective_ms is None:
            return None
        return declared.wait_objective_ms / 1000

    @property
    def shortest_lease_seconds(self) -> float:
        """The shortest lease of any queue."""
        return min([self.settings.lease_seconds, *(self(queue).lease_seconds for queue in self._declared)])

    def read(self, connection: Connection, queues: Iterable[str]) -> None:
        """Read the declarations of `queues`. Raises StoreUnavailable, and keeps what it knew then."""
        self._declared = connection.run(read_queues(connection.keys, sorted(queues)))
