"""`AsyncClient`: the API for one event loop. It drives exchanges and knows nothing of what they say."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from callboard.client import operations
from callboard.client.endpoint import Endpoint
from callboard.client.exchange import Answer, Call, Exchange, Fault, Pause, Reply
from callboard.client.resources import Event
from callboard.client.subscription import Subscription

P = ParamSpec("P")
T = TypeVar("T")


def _awaited(
    operation: Callable[P, Exchange[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(operation(*args, **kwargs))

    functools.update_wrapper(method, operation)
    return method


class AsyncClient(Endpoint):
    """The API for one event loop. As `Client`; every operation is awaited."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, key)
        self._http = httpx.AsyncClient(transport=transport, **self.options())

    submit = _awaited(operations.submit)
    submit_batch = _awaited(operations.submit_batch)
    task = _awaited(operations.task)
    wait = _awaited(operations.wait)
    tasks = _awaited(operations.tasks)
    logs = _awaited(operations.logs)
    cancel = _awaited(operations.cancel)
    retry = _awaited(operations.retry)
    resubmit = _awaited(operations.resubmit)
    delete = _awaited(operations.delete)
    queues = _awaited(operations.queues)
    queue = _awaited(operations.queue)
    pause = _awaited(operations.pause)
    resume = _awaited(operations.resume)
    purge = _awaited(operations.purge)
    workers = _awaited(operations.workers)
    catalog = _awaited(operations.catalog)
    ready = _awaited(operations.ready)

    def events(
        self,
        *,
        queue: str | None = None,
        name: str | None = None,
        tag: str | None = None,
        type: str | None = None,
        after: str | None = None,
        idle_seconds: float | None = None,
    ) -> AsyncEventStream:
        """The events of all that the key may see. `after`: a cursor; see `Subscription`."""
        path, params = operations.events_path(queue=queue, name=name, tag=tag, type=type)
        return AsyncEventStream(self, Subscription(path, params, after=after, idle_seconds=idle_seconds))

    def task_events(self, task_id: str, *, after: str | None = None) -> AsyncEventStream:
        """The events of one task until it has ended."""
        path = operations.task_events_path(task_id)
        return AsyncEventStream(self, Subscription(path, after=after, ends_with_task=True))

    async def run(self, exchange: Exchange[T]) -> T:
        """Drive an exchange to its result."""
        answer: Answer | None = None
        try:
            while True:
                step = exchange.send(answer)
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    answer = None
                else:
                    answer = await self._send(step)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            exchange.close()

    async def _send(self, call: Call) -> Answer:
        try:
            response = await self._http.request(**self.request_of(call))
        except httpx.HTTPError as error:
            return self.fault_of(error)
        return Reply(response.status_code, response.headers, response.content)

    async def _open(self, call: Call) -> tuple[Answer, httpx.Response | None]:
        """Connect a stream: its head, and the response while bytes will follow."""
        try:
            response = await self._http.send(self._http.build_request(**self.request_of(call)), stream=True)
        except httpx.HTTPError as error:
            return self.fault_of(error), None
        if response.status_code == httpx.codes.OK:
            return Reply(response.status_code, response.headers), response
        try:
            body = await response.aread()
        except httpx.HTTPError as error:
            return self.fault_of(error), None
        finally:
            await response.aclose()
        return Reply(response.status_code, response.headers, body), None

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncEventStream:
    """Events as they come; a lost connection is made anew and goes on where it was.

    Entering connects, so that nothing which happens after is missed; then iterate, once.
    """

    def __init__(self, client: AsyncClient, subscription: Subscription) -> None:
        self._client = client
        self._subscription = subscription
        self._response: httpx.Response | None = None

    @property
    def cursor(self) -> str | None:
        """Where another stream would go on."""
        return self._subscription.cursor

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def __aiter__(self) -> AsyncIterator[Event]:
        subscription = self._subscription
        while not subscription.over:
            if self._response is None and not await self._connect():
                continue
            fault = None
            try:
                assert self._response is not None
                async for chunk in self._response.aiter_bytes():
                    for event in subscription.feed(chunk):
                        yield event
                    if subscription.over:
                        return
            except httpx.HTTPError as error:
                fault = self._client.fault_of(error)
            await self.close()
            await asyncio.sleep(subscription.lost(fault))

    async def _connect(self) -> bool:
        subscription = self._subscription
        answer, self._response = await self._client._open(subscription.call())
        try:
            if subscription.opened(answer):
                return True
        except BaseException:
            await self.close()
            raise
        if not subscription.over:
            await asyncio.sleep(subscription.lost(answer if isinstance(answer, Fault) else None))
        return False

    async def close(self) -> None:
        """Let go of the connection."""
        if self._response is not None:
            with suppress(httpx.HTTPError):
                await self._response.aclose()
            self._response = None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
