"""Dramatiq actors of the chaos tests, beside the tasks of chaos_bodies. Workers load it by its path."""

from __future__ import annotations

import dramatiq

from tests.support import ledger


@dramatiq.actor(queue_name="actors", max_retries=3, min_backoff=50)
def double(number: int) -> int:
    """The first of a pipeline."""
    with ledger.entered():
        return 2 * number


@dramatiq.actor(queue_name="actors")
def keep(number: int) -> int:
    """The last of a pipeline."""
    with ledger.entered():
        return number
