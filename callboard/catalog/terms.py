"""Terms: what a contract comes to once its queue has filled in what it left open; plain, for publishing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from callboard.catalog.backoff import DEFAULT_BACKOFF, Backoff, backoff_from

Isolation = Literal["process", "thread", "loop"]
OnLostLease = Literal["stop", "continue"]

DEFAULT_PRIORITY: Final = 5
DEFAULT_RETRIES: Final = 3
DEFAULT_SOFT_LIMIT_MS: Final = 540_000
DEFAULT_HARD_LIMIT_MS: Final = 600_000


@dataclass(frozen=True, slots=True)
class Terms:
    """The limits of one task's attempts. None: no limit; `retries` None: endless."""

    name: str
    queue: str
    priority: int = DEFAULT_PRIORITY
    retries: int | None = DEFAULT_RETRIES
    backoff: Backoff = DEFAULT_BACKOFF
    soft_limit_ms: int | None = DEFAULT_SOFT_LIMIT_MS
    hard_limit_ms: int | None = DEFAULT_HARD_LIMIT_MS
    memory_limit_bytes: int | None = None
    expires_in_ms: int | None = None
    on_lost_lease: OnLostLease = "continue"
    tags: tuple[str, ...] = ()
    retry_on: tuple[str, ...] = field(default=())
    permanent: tuple[str, ...] = field(default=())

    @property
    def max_attempts(self) -> int | None:
        """Retries and the first attempt; None: endless."""
        return None if self.retries is None else self.retries + 1

    def retry_delay_ms(self, attempt: int, chance: float) -> int:
        """The wait after failed attempt number `attempt` (from 1); `chance`: 0 ≤ chance < 1, uniform."""
        return self.backoff.delay_ms(attempt, chance)

    def document(self) -> dict[str, Any]:
        """The published form."""
        return {
            "priority": self.priority,
            "retries": self.retries,
            "backoff": self.backoff.document(),
            "soft_limit_ms": self.soft_limit_ms,
            "hard_limit_ms": self.hard_limit_ms,
            "memory_limit_bytes": self.memory_limit_bytes,
            "expires_in_ms": self.expires_in_ms,
            "on_lost_lease": self.on_lost_lease,
            "tags": list(self.tags),
            "retry_on": list(self.retry_on),
            "permanent": list(self.permanent),
        }

    @classmethod
    def from_document(cls, name: str, queue: str, document: dict[str, Any]) -> Terms:
        """The inverse of `document()`. A newer release's further fields are ignored.

        Raises KeyError or TypeError for another shape.
        """
        return cls(
            name=name,
            queue=queue,
            priority=document["priority"],
            retries=document["retries"],
            backoff=backoff_from(document["backoff"]),
            soft_limit_ms=document["soft_limit_ms"],
            hard_limit_ms=document["hard_limit_ms"],
            memory_limit_bytes=document["memory_limit_bytes"],
            expires_in_ms=document["expires_in_ms"],
            on_lost_lease=document["on_lost_lease"],
            tags=tuple(document["tags"]),
            retry_on=tuple(document["retry_on"]),
            permanent=tuple(document["permanent"]),
        )
