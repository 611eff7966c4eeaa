"""The catalog as this process sees it: at most two seconds old, so that a submit need not ask for it; and as
it is now, for what lists it or finds nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from callboard import clock, inspector
from callboard.catalog.published import Catalog, PublishedTask, read
from callboard.errors import CallboardError, UnknownQueue, UnknownTask
from callboard_api.store import Store

logger = logging.getLogger("callboard.api")

#: From this age on the catalog is read again behind the next request's back …
_FRESH_SECONDS: Final = 1.0
#: … and from this age on, before it is answered.
_STALE_SECONDS: Final = 2.0
#: Readings that somebody waits for begin no closer together than this.
_APART_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The catalog and the registry of queues, at one moment."""

    catalog: Catalog = field(default_factory=Catalog)
    queues: frozenset[str] = frozenset()

    def objectives(self) -> dict[str, float]:
        """Wait objectives in seconds, of the queues that have one."""
        return {
            name: queue.wait_objective_ms / 1000
            for name, queue in self.catalog.queues.items()
            if queue.wait_objective_ms
        }


class CatalogView:
    """Reads the catalog when it is asked for and no younger copy is at hand."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._snapshot = Snapshot()
        self._read_at = float("-inf")
        self._reading: asyncio.Task[Snapshot] | None = None

    async def snapshot(self) -> Snapshot:
        """The catalog, at most _STALE_SECONDS old. Raises StoreUnavailable."""
        age = clock.monotonic() - self._read_at
        if age > _STALE_SECONDS:
            return await asyncio.shield(self._refresh())
        if age > _FRESH_SECONDS:
            self._refresh()
        return self._snapshot

    async def current(self) -> Snapshot:
        """The catalog, from a reading that began after this call: what was published before it is there.

        Raises StoreUnavailable.
        """
        asked = clock.monotonic()
        # Not the reading under way: it may have passed what was published meanwhile.
        while self._read_at < asked:
            await asyncio.sleep(max(self._read_at + _APART_SECONDS - clock.monotonic(), 0))
            await asyncio.shield(self._refresh())
        return self._snapshot

    async def look_up(self, names: Iterable[str], queues: Iterable[str]) -> Snapshot:
        """A snapshot in which all of these are, if they exist: a task that a worker has published this
        moment can be submitted now.
        """
        found = await self.snapshot()
        if all(name in found.catalog.tasks for name in names) and all(
            queue in found.queues or queue in found.catalog.queue_names() for queue in queues
        ):
            return found
        return await self.current()

    def _refresh(self) -> asyncio.Task[Snapshot]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(), name="catalog")
            self._reading.add_done_callback(_heard)
        return self._reading

    async def _read(self) -> Snapshot:
        started = clock.monotonic()
        catalog = await self._store.run(read(self._store.keys))
        queues = await self._store.run(inspector.queue_names(self._store.keys))
        self._snapshot = Snapshot(catalog, frozenset(queues))
        self._read_at = started
        return self._snapshot


def known_task(snapshot: Snapshot, name: str) -> PublishedTask:
    """Raises UnknownTask with the nearest name, and says so when no worker has published any."""
    try:
        return snapshot.catalog.task(name)
    except UnknownTask as error:
        if not snapshot.catalog.tasks:
            error.message = f"No task is named {name!r}: no worker has published any task yet."
        raise


def known_queue(snapshot: Snapshot, name: str) -> str:
    """Raises UnknownQueue with the nearest name."""
    if name in snapshot.queues:
        return name
    known = snapshot.catalog.queue_names() | snapshot.queues
    if name not in known:
        raise UnknownQueue(name, known)
    return name


def _heard(task: asyncio.Task[Snapshot]) -> None:
    # A failed reading behind the back is told by the next request, which waits for one.
    if not task.cancelled() and isinstance(error := task.exception(), Exception):
        level = logging.DEBUG if isinstance(error, CallboardError) else logging.ERROR
        logger.log(level, "The catalog could not be read: %s", error, exc_info=level == logging.ERROR)
