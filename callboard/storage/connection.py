"""Connections: the drivers of operations, one for threads and one for an event loop."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Any, TypeVar, cast
from weakref import WeakSet

import redis

from callboard.metrics import metrics
from callboard.storage import replication
from callboard.storage.address import SOCKET_TIMEOUT_SECONDS, Address, AsyncClient, Client
from callboard.storage.faults import translate
from callboard.storage.guarded import pools
from callboard.storage.keys import Keys
from callboard.storage.lines import Lines
from callboard.storage.memory import FRESH_SECONDS, RECENT_SECONDS, Memory
from callboard.storage.operation import (
    Command,
    Confirmed,
    Everywhere,
    NodeOf,
    Operation,
    Request,
    ScriptCall,
    ScriptCalls,
    Stencil,
)

T = TypeVar("T")

#: Above this share of maxmemory, events and log lines are no longer written.
QUIET_ABOVE = 0.9
_FAULTS = (redis.RedisError, OSError)


class _Base:
    def __init__(self, url: str, *, namespace: str = "cb", events_keep: int = 100_000) -> None:
        self.address = Address.parse(url)
        self.keys = Keys(namespace)
        self._memory: dict[str, Memory] = {}
        self.events_keep = events_keep

    @property
    def place(self) -> str:
        """Which Redis, and which namespace there, for people and for comparisons; without the password."""
        return f"{self.address.place}, namespace {self.keys.namespace}"

    def _gauge(self, prefix: str) -> Memory:
        # A cluster's nodes fill separately; elsewhere there is one.
        place = prefix if self.address.kind == "cluster" else ""
        found = self._memory.get(place)
        return self._memory.setdefault(place, Memory()) if found is None else found

    def _words(self, call: ScriptCall, share: float) -> tuple[Any, ...]:
        if call.script.flags:
            flags = f"{int(share > QUIET_ABOVE)}:{self.events_keep}"
            return (call.script.sha, 1, call.prefix, flags, *call.args)
        return (call.script.sha, 1, call.prefix, *call.args)


class Connection(_Base):
    """Redis for threads: safe to share among them.

    Parameters:
        url: see `storage.address`.
        namespace: first part of every key.
        events_keep: entries kept in each queue's event stream.
        socket_timeout, resends: see `Address.client`.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "cb",
        events_keep: int = 100_000,
        client: Client | None = None,
    ) -> None:
        super().__init__(url, namespace=namespace, events_keep=events_keep)
        try:
            self.client: Client = client or self.address.client()
        except _FAULTS as error:  # a cluster client connects when it is made
            raise translate(error) from error
        # A client that was given is shared: lines would stay taken when this connection is gone.
        alone = client is None and isinstance(self.client, redis.Redis)
        self._lines = Lines(cast("redis.Redis", self.client)) if alone else None
        if isinstance(self.client, redis.Redis):
            _open.add(self)

    def run(self, operation: Operation[T]) -> T:
        """Drive `operation` to its result.

        Raises: StoreUnavailable, StoreFull, and what the operation raises.
        """
        reply: Any = None
        try:
            while True:
                try:
                    request = operation.send(reply)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                reply = self.execute(request)
        finally:
            operation.close()

    def execute(self, request: Request) -> Any:
        """The reply to one request, in redis-py's types, bytes undecoded."""
        client: Any = self.client  # redis-py does not annotate execute_command
        try:
            if isinstance(request, ScriptCall):
                share = self._share(request.prefix, RECENT_SECONDS) if request.script.flags else 0.0
                words = self._words(request, share)
                try:
                    if self._lines is not None:
                        return self._lines.call(("EVALSHA", *words))
                    return client.execute_command("EVALSHA", *words)
                except redis.exceptions.NoScriptError:
                    return client.execute_command("EVAL", request.script.source, *words[1:])
            if isinstance(request, Command):
                return client.execute_command(*request.words)
            if isinstance(request, ScriptCalls):
                return self._each(request.calls)
            if isinstance(request, Everywhere):
                return self._everywhere(request)
            if isinstance(request, NodeOf):
                return self._node_of(request.prefix)
            if isinstance(request, Confirmed):
                return replication.confirmed(self.client, request)
            return self._share(request.prefix)
        except _FAULTS as error:
            raise self._told(error) from error

    def stencil(self, call: ScriptCall, below: float = QUIET_ABOVE) -> Stencil | None:
        """`call`, which lacks its last argument, ready to be sent again and again by `fill`.

        None where that is not to be had (a cluster, a shared client).
        """
        if self._lines is None:
            return None
        whole = b"".join(self._lines.packed(("EVALSHA", *self._words(call, 0.0), b"")))
        return Stencil(call, whole.removesuffix(b"$0\r\n\r\n"), min(below, QUIET_ABOVE))

    def fill(self, stencil: Stencil, last: bytes) -> Any:
        """The reply to a stencil of this connection with its last argument, as `execute` gives it.

        None, and nothing was sent, when memory is fuller than the stencil is for.
        """
        assert self._lines is not None
        try:
            if self._share(stencil.call.prefix) >= stencil.below:
                return None
            return self._lines.send((b"%b$%d\r\n%b\r\n" % (stencil.head, len(last), last),))
        except redis.exceptions.NoScriptError:
            return self.execute(stencil.filled(last))
        except _FAULTS as error:
            raise self._told(error) from error

    def _each(self, calls: Iterator[ScriptCall]) -> list[Any]:
        unanswered: deque[ScriptCall] = deque()
        replies: list[Any] = []

        def commands() -> Iterator[tuple[Any, ...]]:
            for call in calls:
                unanswered.append(call)
                share = self._share(call.prefix, RECENT_SECONDS) if call.script.flags else 0.0
                yield ("EVALSHA", *self._words(call, share))

        if self._lines is not None:
            try:
                for reply in self._lines.stream(commands()):
                    replies.append(reply)
                    unanswered.popleft()
            except _FAULTS:
                # They come again below, one by one and with `execute`'s patience: a script may be sent twice.
                metrics.redis_errors.inc()
        replies.extend(self.execute(call) for call in chain(unanswered, calls))
        return replies

    def _share(self, prefix: str, within_seconds: float = FRESH_SECONDS) -> float:
        memory = self._gauge(prefix)
        if memory.known(within_seconds):
            return memory.share
        if self._lines is not None:
            return memory.note(self._lines.call(("INFO", "memory")))
        if isinstance(self.client, redis.RedisCluster):
            node = self.client.get_node_from_key(prefix)
            return memory.note(self.client.info("memory", target_nodes=node))
        return memory.note(self.client.info("memory"))

    def _everywhere(self, request: Everywhere) -> dict[str, Any]:
        client: Any = self.client
        if not isinstance(self.client, redis.RedisCluster):
            return {"": client.execute_command(*request.words)}
        replies: dict[str, Any] = {}
        for node in self.client.get_primaries():
            try:
                replies[node.name] = client.execute_command(*request.words, target_nodes=node)
            except _FAULTS as error:
                replies[node.name] = translate(error)
        return replies

    def _node_of(self, prefix: str) -> str:
        if not isinstance(self.client, redis.RedisCluster):
            return ""
        return str(self.client.get_node_from_key(prefix).name)

    def scan(self, pattern: str) -> Iterator[bytes]:
        """Every key that matches the glob, from every primary, in bounded steps; one may come twice."""
        try:
            yield from self.client.scan_iter(match=pattern, count=500)
        except _FAULTS as error:
            raise translate(error) from error

    def _told(self, error: Exception) -> Exception:
        # A name that a failover moved: connections to the old primary would answer READONLY for ever.
        if isinstance(error, redis.exceptions.ReadOnlyError) and isinstance(self.client, redis.Redis):
            if self._lines is not None:
                self._lines.hang_up()
            self.client.connection_pool.disconnect(inuse_connections=False)
        return translate(error)

    def blocking(self, longest_seconds: float | None = None) -> Client:
        """A client of its own for commands that block; the caller closes it. No resends: the caller loops.

        `longest_seconds`: how long its commands block at most. Without it, a connection that the network has
        forgotten is waited on for hours.
        """
        timeout = None if longest_seconds is None else longest_seconds + SOCKET_TIMEOUT_SECONDS
        try:
            return self.address.client(socket_timeout=timeout, resends=0)
        except _FAULTS as error:
            raise translate(error) from error

    def close(self) -> None:
        """Close every connection; calls after that connect anew."""
        if self._lines is not None:
            self._lines.hang_up()
        self.client.close()


_open: WeakSet[Connection] = WeakSet()


def _unlock() -> None:
    # redis-py makes its pool anew in a forked child, but asks for the pool's lock first: who held it at the
    # fork is a thread that the child does not have, and it would wait for ever.
    for connection in _open:
        for pool in pools(connection.client):
            pool._lock, pool._fork_lock = threading.RLock(), threading.RLock()


os.register_at_fork(after_in_child=_unlock)


class AsyncConnection(_Base):
    """Redis for one event loop. As `Connection`; `run` is awaited."""

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "cb",
        events_keep: int = 100_000,
        client: AsyncClient | None = None,
    ) -> None:
        super().__init__(url, namespace=namespace, events_keep=events_keep)
        self.client: AsyncClient = client or self.address.async_client()

    async def run(self, operation: Operation[T]) -> T:
        """See `Connection.run`."""
        reply: Any = None
        try:
            while True:
                try:
                    request = operation.send(reply)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                reply = await self.execute(request)
        finally:
            operation.close()

    async def execute(self, request: Request) -> Any:
        """See `Connection.execute`."""
        try:
            if isinstance(request, ScriptCall):
                share = await self._share(request.prefix, RECENT_SECONDS) if request.script.flags else 0.0
                words = self._words(request, share)
                try:
                    return await self.client.execute_command("EVALSHA", *words)
                except redis.exceptions.NoScriptError:
                    return await self.client.execute_command("EVAL", request.script.source, *words[1:])
            if isinstance(request, Command):
                return await self.client.execute_command(*request.words)
            if isinstance(request, ScriptCalls):
                return [await self.execute(call) for call in request.calls]
            if isinstance(request, Everywhere):
                return await self._everywhere(request)
            if isinstance(request, NodeOf):
                return await self._node_of(request.prefix)
            if isinstance(request, Confirmed):
                return await replication.aconfirmed(self.client, request)
            return await self._share(request.prefix)
        except _FAULTS as error:
            if isinstance(error, redis.exceptions.ReadOnlyError) and isinstance(
                self.client, redis.asyncio.Redis
            ):
                await self.client.connection_pool.disconnect(inuse_connections=False)
            raise translate(error) from error

    async def _share(self, prefix: str, within_seconds: float = FRESH_SECONDS) -> float:
        memory = self._gauge(prefix)
        if memory.known(within_seconds):
            return memory.share
        memory.asking()
        try:
            if isinstance(self.client, redis.asyncio.RedisCluster):
                await self.client.initialize()  # it knows its nodes after that only
                node = self.client.get_node_from_key(prefix)
                return memory.note(await self.client.info("memory", target_nodes=node))
            return memory.note(await self.client.info("memory"))
        except BaseException:
            memory.forget()
            raise

    async def _everywhere(self, request: Everywhere) -> dict[str, Any]:
        if not isinstance(self.client, redis.asyncio.RedisCluster):
            return {"": await self.client.execute_command(*request.words)}
        await self.client.initialize()
        replies: dict[str, Any] = {}
        for node in self.client.get_primaries():
            try:
                replies[node.name] = await self.client.execute_command(*request.words, target_nodes=node)
            except _FAULTS as error:
                replies[node.name] = translate(error)
        return replies

    async def _node_of(self, prefix: str) -> str:
        if not isinstance(self.client, redis.asyncio.RedisCluster):
            return ""
        await self.client.initialize()
        node = self.client.get_node_from_key(prefix)
        return "" if node is None else str(node.name)

    def blocking(self) -> AsyncClient:
        """See `Connection.blocking`."""
        return self.address.async_client(socket_timeout=None, resends=0)

    async def close(self) -> None:
        """Close every connection."""
        await self.client.aclose()
