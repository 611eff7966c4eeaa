"""The courier: what must happen after a task is delivered from its queue's outbox, at least once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from callboard.errors import CallboardError, StoreFull, StoreUnavailable, Unconfirmed
from callboard.storage.connection import Connection
from callboard.storage.keys import Keys
from callboard.storage.operation import Command, Operation, ScriptCall
from callboard.storage.scripts import script

Deliver = Callable[[Keys, bytes], Operation[Any]]
"""Delivers an item's body, idempotently: its target's id derives from the item. Raises if it could not."""

_OUTBOX = script("callboard.maintenance", "outbox")
_DELIVERED = script("callboard.maintenance", "delivered")
#: Items delivered in one step.
STEP = 50
_LONGEST_BACKOFF_SECONDS = 300.0
_FAILURES_KEPT = 10_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Delivered:
    """`delivered`: items that arrived. `failed`: items that stay, and are tried again later."""

    delivered: int = 0
    failed: int = 0

    @property
    def again_seconds(self) -> float | None:
        """When to look again, if before the loop's interval."""
        return 0.0 if self.delivered + self.failed >= STEP else None


class Courier:
    """Delivers outbox items, the oldest first, at most 50 a step; backs off from those that fail.

    An item's score is when it may be delivered. A failing item's score moves into the future, so that it
    neither holds up the others nor is forgotten when another process takes over.
    """

    name = "courier"
    interval_seconds = 1.0

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._failures: dict[tuple[str, str], int] = {}

    def run_once(self, connection: Connection, queue: str) -> Delivered:
        """One step. Raises StoreUnavailable; any other failure of an item is logged and backed off.

        What is delivered, but not to a replica as the settings ask, stays too, and ends the step.
        """
        keys = connection.keys
        items, now_ms = connection.run(read_outbox(keys, queue))
        arrived: list[str] = []
        failed = 0
        try:
            for member, body in items:
                try:
                    if body is not None:  # delivered before, by a call that was cut off in its last step
                        connection.run(self._deliver(keys, body))
                except Unconfirmed as error:
                    failed += 1
                    self._back_off(connection, queue, member, now_ms, error)
                    break  # each of the others would wait for the missing replica too
                except StoreUnavailable:
                    raise
                except Exception as error:
                    failed += 1
                    self._back_off(connection, queue, member, now_ms, error)
                else:
                    arrived.append(member)
        finally:
            if arrived:
                connection.run(delivered(keys, queue, arrived))
        for member in arrived:
            self._failures.pop((queue, member), None)
        return Delivered(len(arrived), failed)

    def _back_off(
        self, connection: Connection, queue: str, member: str, now_ms: int, error: Exception
    ) -> None:
        if len(self._failures) >= _FAILURES_KEPT:
            self._failures.clear()  # they back off less for a while, and that is all
        tries = self._failures[queue, member] = self._failures.get((queue, member), 0) + 1
        seconds = min(_LONGEST_BACKOFF_SECONDS, 2.0 ** min(tries - 1, 16))
        trace = None if isinstance(error, CallboardError) else error
        logger.warning(
            "Could not deliver %s of queue %s (try %d, next in %g s): %s",
            member, queue, tries, seconds, error, exc_info=trace,
        )  # fmt: skip
        with suppress(StoreFull):  # at maxmemory a score cannot move; the item is simply tried again
            connection.run(postpone(connection.keys, queue, member, now_ms + int(seconds * 1000)))


def read_outbox(
    keys: Keys, queue: str, limit: int = STEP
) -> Operation[tuple[list[tuple[str, bytes | None]], int]]:
    """Items that may be delivered now, oldest first, as (member, body); and Redis's time in ms."""
    now_ms, *flat = yield ScriptCall(_OUTBOX, keys.queue(queue).prefix, (limit,))
    return [(member.decode(), body) for member, body in zip(flat[::2], flat[1::2], strict=True)], now_ms


def delivered(keys: Keys, queue: str, members: list[str]) -> Operation[int]:
    """Take items that have arrived out of the outbox; how many were still there."""
    gone: int = yield ScriptCall(_DELIVERED, keys.queue(queue).prefix, members)
    return gone


def postpone(keys: Keys, queue: str, member: str, until_ms: int) -> Operation[None]:
    """Deliver `member` no earlier than `until_ms`. Raises StoreFull at maxmemory."""
    yield Command("ZADD", keys.queue(queue).outbox, "XX", until_ms, member)
