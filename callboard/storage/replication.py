"""Whether a replica has what was just written.

WAIT counts replicas that have the writes of *its own* connection, and the write in question may have gone
over another one of the pool. A write here, sent in one go with its WAIT, is behind that one in the
replication stream, so a replica that has this one has both.
"""

from __future__ import annotations

from typing import Any

import redis

from callboard.storage.address import AsyncClient, Client
from callboard.storage.operation import Confirmed


def confirmed(client: Client, request: Confirmed) -> bool:
    """Whether one replica has confirmed in time. Raises what redis-py raises."""
    server: Any = client
    if isinstance(client, redis.RedisCluster):
        server = client.get_redis_connection(client.get_node_from_key(request.key))
    pipe = server.pipeline(transaction=False)
    pipe.execute_command("HSET", request.key, "confirmed", "1")
    pipe.execute_command("WAIT", 1, request.within_ms)
    return _told(*pipe.execute(raise_on_error=False))


async def aconfirmed(client: AsyncClient, request: Confirmed) -> bool:
    """As `confirmed`, on an event loop."""
    if isinstance(client, redis.asyncio.RedisCluster):
        return await _by_node(client, request)
    pipe: Any = client.pipeline(transaction=False)
    pipe.execute_command("HSET", request.key, "confirmed", "1")
    pipe.execute_command("WAIT", 1, request.within_ms)
    return _told(*await pipe.execute(raise_on_error=False))


async def _by_node(client: Any, request: Confirmed) -> bool:
    # Its nodes' pipelines take no WAIT, so the two commands are put on one of their connections by hand.
    await client.initialize()
    node = client.get_node_from_key(request.key)
    connection = node.acquire_connection()
    try:
        await connection.send_command("HSET", request.key, "confirmed", "1")
        await connection.send_command("WAIT", 1, request.within_ms)
        written: Any = 0
        try:
            written = await node.parse_response(connection, "HSET")
        except redis.ResponseError as error:
            written = error
        return _told(written, await node.parse_response(connection, "WAIT"))
    except BaseException:
        await connection.disconnect()
        raise
    finally:
        node.release(connection)


def _told(written: Any, replicas: Any) -> bool:
    # Memory that ran out after the write in question: that one is stored, and nobody knows where else.
    if isinstance(written, redis.exceptions.OutOfMemoryError):
        return False
    for reply in (written, replicas):
        if isinstance(reply, Exception):
            raise reply
    return int(replicas) >= 1
