"""The hub: reads every queue's event stream once for the whole process, as long as somebody listens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from callboard import inspector
from callboard.errors import CallboardError, StoreUnavailable
from callboard.events.stream import decode
from callboard.storage.connection import AsyncConnection
from callboard.storage.operation import Command
from callboard_api.store import Store
from callboard_api.streams.cursor import START, Position, position, text
from callboard_api.streams.listener import Interest, Listener, Signal
from callboard_api.streams.window import kept

logger = logging.getLogger("callboard.api")

#: One read blocks so long; then queues that are new meanwhile join in.
_BLOCK_MS: Final = 1000
_AT_ONCE: Final = 500
_NEW_QUEUES_SECONDS: Final = 2.0
_BACK_OFF_SECONDS: Final = 0.5
#: A read that has not come back so long after its block is taken for lost.
_GRACE_SECONDS: Final = 5.0


class Hub:
    """Listeners, and the readers that feed them. One reader serves all queues; on a Redis Cluster each queue
    has its own, for one command cannot read streams of several slots.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._connection = store.connection
        self._listeners: set[Listener] = set()
        self._places: dict[str, Position] = {}
        self._each_alone = store.connection.address.kind == "cluster"
        self._runner: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self.stopped = False

    @property
    def places(self) -> dict[str, Position]:
        """How far each queue has been read."""
        return self._places

    @asynccontextmanager
    async def listen(self, interest: Interest) -> AsyncIterator[Listener]:
        """A listener that hears everything after `places`, as they are when the block begins.

        Raises StoreUnavailable when the readers cannot start.
        """
        listener = Listener(interest)
        async with self._starting:
            if not self._listeners or self._runner is None or self._runner.done():
                await self._start()
            self._listeners.add(listener)
        if self.stopped:
            listener.end("stopped")
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners and self._runner is not None:
                self._runner.cancel()

    def stop(self) -> None:
        """End every stream: the process is going."""
        self.stopped = True
        for listener in self._listeners:
            listener.end("stopped")

    async def close(self) -> None:
        """Stop the readers."""
        self.stop()
        await self._stop_runner()

    async def _start(self) -> None:
        await self._stop_runner()
        self._places.clear()
        await self._find_queues(new=False)
        self._runner = asyncio.create_task(self._run(), name="events")
        self._runner.add_done_callback(self._ended)

    def _ended(self, runner: asyncio.Task[None]) -> None:
        if not runner.cancelled() and (error := runner.exception()) is not None:
            logger.error("The reader of events has died; its listeners come back", exc_info=error)
            for listener in self._listeners:
                listener.end("gap")

    async def _stop_runner(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)

    async def _find_queues(self, *, new: bool) -> list[str]:
        """Queues that are not read yet join: from their first event when they are new, else from the last."""
        store = self._store
        found = []
        for name in await store.run(inspector.queue_names(store.keys)):
            if name not in self._places:
                window = None if new else await store.run(kept(store.keys.queue(name)))
                self._places[name] = START if window is None else window.last
                found.append(name)
        return found

    async def _run(self) -> None:
        """Keep readers going until cancelled; look for new queues."""
        # Its own client: a read that blocks must not hold a connection that a request needs.
        client = self._connection.blocking()
        reading = AsyncConnection(
            self._connection.address.url, namespace=self._connection.keys.namespace, client=client
        )
        try:
            async with asyncio.TaskGroup() as readers:
                if not self._each_alone:
                    readers.create_task(self._read(reading, None))
                for name in self._places if self._each_alone else ():
                    readers.create_task(self._read(reading, name))
                while True:
                    await asyncio.sleep(_NEW_QUEUES_SECONDS)
                    try:
                        names = await self._find_queues(new=True)
                    except StoreUnavailable:
                        continue  # the readers notice as well, and tell
                    for name in names if self._each_alone else ():
                        readers.create_task(self._read(reading, name))
        finally:
            await reading.close()

    async def _read(self, reading: AsyncConnection, only: str | None) -> None:
        """Read one queue's stream, or all, for ever."""
        failed = False
        while True:
            names = [only] if only is not None else list(self._places)
            try:
                if failed:
                    await self._check(names)
                    failed = False
                if not names:
                    await asyncio.sleep(_BLOCK_MS / 1000)
                    continue
                async with asyncio.timeout(_BLOCK_MS / 1000 + _GRACE_SECONDS):
                    reply = await reading.execute(self._command(names))
            except (CallboardError, TimeoutError) as error:
                logger.debug("Reading events failed: %s", error)
                failed = True
                await asyncio.sleep(_BACK_OFF_SECONDS)
                continue
            self._spread(reply)

    def _command(self, names: Sequence[str]) -> Command:
        keys = [self._connection.keys.queue(name).events for name in names]
        places = [text(self._places[name]) for name in names]
        return Command("XREAD", "COUNT", _AT_ONCE, "BLOCK", _BLOCK_MS, "STREAMS", *keys, *places)

    def _spread(self, reply: Any) -> None:
        """Give the events of one reply to the listeners, in the order of their times."""
        if not reply:
            return
        by_key = {self._connection.keys.queue(name).events: name for name in self._places}
        signals: list[Signal] = []
        for key, entries in reply.items() if isinstance(reply, dict) else reply:
            name = by_key[key.decode()]
            for entry in _entries(entries):
                self._places[name] = position(entry[0].decode())
                event = decode(name, entry)
                if event is not None:
                    signals.append(Signal(event))
        signals.sort(key=lambda signal: signal.place)
        for signal in signals:
            for listener in self._listeners:
                listener.offer(signal)

    async def _check(self, names: Sequence[str]) -> None:
        """After an outage: where a failover has shortened a stream, nothing would ever come after our place.

        Its listeners end; they come back with their cursors, and are told of the gap.
        """
        for name in names:
            window = await self._store.run(kept(self._store.keys.queue(name)))
            if self._places[name] > window.last:
                self._places[name] = window.last
                for listener in self._listeners:
                    if listener.interest.covers(name):
                        listener.end("gap")


def _entries(entries: Any) -> list[tuple[bytes, Any]]:
    """Entries of one stream, in either protocol's shape: RESP3 puts them into one more list."""
    if entries and isinstance(entries[0], list) and entries[0] and isinstance(entries[0][0], list | tuple):
        return [entry for part in entries for entry in part]
    return list(entries)
