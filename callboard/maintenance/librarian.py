"""The librarian: entries of the catalog that no worker has refreshed for 30 days leave it."""

from __future__ import annotations

from dataclasses import dataclass

from callboard.catalog import published
from callboard.maintenance.policy import PLATFORM_QUEUE
from callboard.storage.connection import Connection


@dataclass(frozen=True, slots=True)
class Weeded:
    """`entries`: how many went."""

    entries: int = 0

    @property
    def again_seconds(self) -> float | None:
        """It can always wait for the loop's interval."""
        return None


class Librarian:
    """Weeds the catalog, which belongs to no queue: whoever cares for the platform's queue does it."""

    name = "librarian"
    interval_seconds = 3600.0

    def run_once(self, connection: Connection, queue: str) -> Weeded:
        """One pass, for the platform's queue alone. Raises StoreUnavailable."""
        if queue != PLATFORM_QUEUE:
            return Weeded()
        return Weeded(connection.run(published.prune(connection.keys)))
