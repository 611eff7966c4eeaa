"""Bells: a subscription to one channel, for who waits on it. What redis-py raises leaves in our words."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import redis

from callboard.storage.faults import translate

_FAULTS = (redis.RedisError, OSError, ValueError)  # ValueError: a subscription that is closed meanwhile


class Bell:
    """For threads; a context manager. Raises StoreUnavailable when it is lost: make another."""

    def __init__(self, client: Any, channel: str) -> None:
        self._pubsub = client.pubsub(ignore_subscribe_messages=True)
        self._channel = channel

    def __enter__(self) -> Self:
        try:
            self._pubsub.subscribe(self._channel)
        except _FAULTS as error:
            self._pubsub.close()
            raise translate(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pubsub.close()

    def wait(self, seconds: float) -> None:
        """Until it rings, for so long at most; it may ring for nothing."""
        try:
            self._pubsub.get_message(timeout=seconds)
        except _FAULTS as error:
            raise translate(error) from error


class AsyncBell:
    """As `Bell`, for one event loop."""

    def __init__(self, client: Any, channel: str) -> None:
        self._client = client
        self._pubsub: Any = None
        self._channel = channel

    async def __aenter__(self) -> Self:
        try:
            # A cluster's client looks for the channel's node in a map that it has not read yet.
            await self._client.initialize()
            self._pubsub = self._client.pubsub(ignore_subscribe_messages=True)
            await self._pubsub.subscribe(self._channel)
        except _FAULTS as error:
            await self._close()
            raise translate(error) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def wait(self, seconds: float) -> None:
        """See `Bell.wait`."""
        try:
            await self._pubsub.get_message(timeout=seconds)
        except _FAULTS as error:
            raise translate(error) from error

    async def _close(self) -> None:
        if self._pubsub is not None:
            await self._pubsub.aclose()
