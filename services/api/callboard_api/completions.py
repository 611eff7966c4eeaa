"""Completions: who waits for a task hears when it ends, over one subscription connection for all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from callboard.records import ids
from callboard.storage.connection import AsyncConnection

logger = logging.getLogger("callboard.api")

#: How long to wait for the server's word that a subscription holds, before the record is read anyway.
_CONFIRMED_WITHIN_SECONDS: Final = 1.0
#: The connection is given back after nobody has waited for this long.
_IDLE_SECONDS: Final = 30.0
_BACK_OFF_SECONDS: Final = 0.5


class Bell:
    """One waiter's ear: rings when the task ends, and when the process stops. A ring can be lost; whoever
    waits reads the record again every few seconds.
    """

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self.held = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, seconds: float) -> None:
        """Return at the ring, after `seconds` at the latest."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        self._rung.clear()


class Completions:
    """Bells by channel, and the reader that rings them."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._bells: dict[bytes, set[Bell]] = {}
        self._client: Any = None
        self._pubsub: Any = None
        self._reader: asyncio.Task[None] | None = None
        # Subscribing and unsubscribing from several requests must not interleave on the one connection.
        self._lock = asyncio.Lock()
        self.stopped = False

    @asynccontextmanager
    async def bell(self, task_id: str) -> AsyncIterator[Bell]:
        """A bell for a task's end, as long as the block lasts; inside it the subscription holds if it can."""
        queue, local = ids.split(task_id)
        channel = self._connection.keys.queue(queue).done(local).encode()
        bell = Bell()
        others = self._bells.setdefault(channel, set())
        held = next((other.held for other in others if other.held.is_set()), None)
        others.add(bell)
        try:
            if held is not None:
                bell.held.set()
            else:
                await self._subscribe(channel, bell)
            yield bell
        finally:
            others.discard(bell)
            if not others and self._bells.get(channel) is others:
                del self._bells[channel]
                await self._unsubscribe(channel)

    def stop(self) -> None:
        """Ring all bells for good: the process is going."""
        self.stopped = True
        for bells in self._bells.values():
            for bell in bells:
                bell.ring()

    async def close(self) -> None:
        """Stop listening."""
        self.stop()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await self._hang_up()

    async def _subscribe(self, channel: bytes, bell: Bell) -> None:
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read(), name="completions")
        elif self._pubsub is not None:
            try:
                async with self._lock:
                    await self._pubsub.subscribe(channel)
            except Exception as error:
                # The reader meets the same fault, connects anew and subscribes to all channels.
                logger.debug("Subscribing failed: %s", error)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONFIRMED_WITHIN_SECONDS):
                await bell.held.wait()

    async def _unsubscribe(self, channel: bytes) -> None:
        try:
            async with self._lock:
                if self._pubsub is not None and channel not in self._bells:
                    await self._pubsub.unsubscribe(channel)
        except Exception as error:
            logger.debug("Unsubscribing failed: %s", error)

    async def _read(self) -> None:
        """Listen until nobody has waited for a while; connect anew whatever happens."""
        idle = 0.0
        while True:
            if idle >= _IDLE_SECONDS:
                await self._hang_up()
                if not self._bells:  # else somebody came while it hung up
                    return
                idle = 0.0
            try:
                if self._pubsub is None:
                    await self._dial()
                message = await self._pubsub.get_message(timeout=1.0)
            except Exception as error:
                # Whatever redis-py raises: waiters read their records meanwhile; no notice is worth a crash.
                logger.debug("Listening for completions failed: %s", error)
                await self._hang_up()
                await asyncio.sleep(_BACK_OFF_SECONDS)
                continue
            if message is not None:
                self._heard(message)
            idle = 0.0 if self._bells or message is not None else idle + 1.0

    async def _dial(self) -> None:
        async with self._lock:
            self._client = self._connection.blocking()
            # A cluster's client looks for the channel's node in a map that it has not read yet.
            await self._client.initialize()
            self._pubsub = self._client.pubsub()
            # Always one channel, so that the connection listens although nobody waits.
            await self._pubsub.subscribe(
                self._connection.keys.queue("callboard").done("nobody"), *self._bells
            )

    async def _hang_up(self) -> None:
        pubsub, client = self._pubsub, self._client
        self._pubsub = self._client = None
        for bells in self._bells.values():
            for bell in bells:
                bell.held.clear()
        with suppress(Exception):
            if pubsub is not None:
                await pubsub.aclose()
            if client is not None:
                await client.aclose()

    def _heard(self, message: dict[str, Any]) -> None:
        bells = self._bells.get(message["channel"], ())
        if message["type"] == "subscribe":
            for bell in bells:
                bell.held.set()
        elif message["type"] == "message":
            for bell in bells:
                bell.ring()
