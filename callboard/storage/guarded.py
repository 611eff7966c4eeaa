"""Clients behind Sentinel. redis-py's own leave their connections to the sentinels open at their end."""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio


class GuardedClient(redis.Redis):
    """For threads; made by `Sentinel.master_for`."""

    def close(self) -> None:
        """Close the connections to the primary and to the sentinels."""
        super().close()
        for sentinel in _sentinels(self):
            sentinel.close()


class AsyncGuardedClient(redis.asyncio.Redis):
    """For one event loop; made by `Sentinel.master_for`."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close the connections to the primary and to the sentinels."""
        await super().aclose(close_connection_pool)
        for sentinel in _sentinels(self):
            await sentinel.aclose()


def _sentinels(client: Any) -> list[Any]:
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return list(manager.sentinels) if manager is not None else []


def pools(client: Any) -> list[Any]:
    """The pools of a client for threads: its own, and those to its sentinels."""
    return [one.connection_pool for one in (client, *_sentinels(client))]
