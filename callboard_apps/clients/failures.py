"""What can go wrong with a foreign service, in one tree that a contract can name.

    ServiceFailure
    ├ Temporary    Unreachable, TooSlow, Busy, Broken
    └ Permanent    Rejected, TooLarge, Unreadable, Untrusted, ForbiddenAddress

This file imports nothing, so that a contract read by the API needs no adapter's packages.
`str(failure)` is one sentence for a person, with what matters in its first words.
"""

from __future__ import annotations


class ServiceFailure(Exception):
    """A foreign service did not give what it was asked for."""


class Temporary(ServiceFailure):
    """The same request may succeed later; `retry_after_ms` is the service's own wish, if it named one."""

    def __init__(self, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class Unreachable(Temporary):
    """No connection: the name is unknown, nobody listens, or the line broke."""


class TooSlow(Temporary):
    """The service was silent for too long, or took too long as a whole."""


class Busy(Temporary):
    """The service asks to come back later (408, 425, 429, 503)."""


class Broken(Temporary):
    """The service failed on its own side (the other 5xx)."""


class Permanent(ServiceFailure):
    """The same request would fail again in the same way."""


class Rejected(Permanent):
    """The service understood and said no (4xx); `status` is its answer."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class TooLarge(Permanent):
    """The answer is larger than the limit."""


class Unreadable(Permanent):
    """The answer is of a kind that cannot be used."""


class Untrusted(Permanent):
    """The service could not prove who it is (TLS)."""


class ForbiddenAddress(Permanent):
    """The address is one that this installation does not let its tasks visit."""
