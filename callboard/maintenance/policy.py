"""What the loops go by: lease, retention and marks, for a queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from callboard.settings import Settings

#: The platform's own queue, which every worker serves.
PLATFORM_QUEUE = "callboard"

#: Expired leases after which a task is quarantined. Before the last one, it runs with nothing beside it.
QUARANTINE_LOSSES = 3

_DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Policy:
    """One queue's rules. Ages in ms, counts in tasks, `memory_share` as a share of maxmemory (0…1)."""

    lease_seconds: float = 20
    completed_ms: int = 7 * _DAY_MS
    failed_ms: int = 30 * _DAY_MS
    completed_count: int = 200_000
    failed_count: int = 50_000
    memory_share: float = 0.60
    events_ms: int = _DAY_MS
    losses: int = QUARANTINE_LOSSES

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """The rules that the settings give to every queue."""
        return cls(
            lease_seconds=settings.worker_lease_seconds,
            completed_ms=int(settings.retention_completed_days * _DAY_MS),
            failed_ms=int(settings.retention_failed_days * _DAY_MS),
            completed_count=settings.retention_completed_count,
            failed_count=settings.retention_failed_count,
            memory_share=settings.retention_memory_percent / 100,
            events_ms=int(settings.events_hours * 3600 * 1000),
        )


Policies = Callable[[str], Policy]
"""The rules of a queue, by its name."""
