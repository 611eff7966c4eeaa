"""`Client`: the API for threads. It drives exchanges and knows nothing of what they say."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

import httpx

from callboard import clock
from callboard.client import operations
from callboard.client.endpoint import Endpoint
from callboard.client.exchange import Answer, Call, Exchange, Fault, Pause, Reply
from callboard.client.resources import Event
from callboard.client.subscription import Subscription

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(operation: Callable[P, Exchange[T]]) -> Callable[Concatenate[Client, P], T]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(operation(*args, **kwargs))

    functools.update_wrapper(method, operation)
    return method


class Client(Endpoint):
    """The API for threads: safe to share among them; close it when done (or use `with`).

    url, key: by default the settings CALLBOARD_URL and CALLBOARD_KEY.
    transport: httpx's, for tests.
    """

    def __init__(
        self, url: str | None = None, key: str | None = None, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        super().__init__(url, key)
        self._http = httpx.Client(transport=transport, **self.options())

    submit = _blocking(operations.submit)
    submit_batch = _blocking(operations.submit_batch)
    task = _blocking(operations.task)
    wait = _blocking(operations.wait)
    tasks = _blocking(operations.tasks)
    logs = _blocking(operations.logs)
    cancel = _blocking(operations.cancel)
    retry = _blocking(operations.retry)
    resubmit = _blocking(operations.resubmit)
    delete = _blocking(operations.delete)
    queues = _blocking(operations.queues)
    queue = _blocking(operations.queue)
    pause = _blocking(operations.pause)
    resume = _blocking(operations.resume)
    purge = _blocking(operations.purge)
    workers = _blocking(operations.workers)
    catalog = _blocking(operations.catalog)
    ready = _blocking(operations.ready)

    def events(
        self,
        *,
        queue: str | None = None,
        name: str | None = None,
        tag: str | None = None,
        type: str | None = None,
        after: str | None = None,
        idle_seconds: float | None = None,
    ) -> EventStream:
        """The events of all that the key may see. `after`: a cursor; see `Subscription`."""
        path, params = operations.events_path(queue=queue, name=name, tag=tag, type=type)
        return EventStream(self, Subscription(path, params, after=after, idle_seconds=idle_seconds))

    def task_events(self, task_id: str, *, after: str | None = None) -> EventStream:
        """The events of one task until it has ended."""
        path = operations.task_events_path(task_id)
        return EventStream(self, Subscription(path, after=after, ends_with_task=True))

    def run(self, exchange: Exchange[T]) -> T:
        """Drive an exchange to its result."""
        answer: Answer | None = None
        try:
            while True:
                step = exchange.send(answer)
                if isinstance(step, Pause):
                    clock.sleep(step.seconds)
                    answer = None
                else:
                    answer = self._send(step)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            exchange.close()

    def _send(self, call: Call) -> Answer:
        try:
            response = self._http.request(**self.request_of(call))
        except httpx.HTTPError as error:
            return self.fault_of(error)
        return Reply(response.status_code, response.headers, response.content)

    def _open(self, call: Call) -> tuple[Answer, httpx.Response | None]:
        """Connect a stream: its head, and the response while bytes will follow."""
        try:
            response = self._http.send(self._http.build_request(**self.request_of(call)), stream=True)
        except httpx.HTTPError as error:
            return self.fault_of(error), None
        if response.status_code == httpx.codes.OK:
            return Reply(response.status_code, response.headers), response
        try:
            body = response.read()
        except httpx.HTTPError as error:
            return self.fault_of(error), None
        finally:
            response.close()
        return Reply(response.status_code, response.headers, body), None

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EventStream:
    """Events as they come; a lost connection is made anew and goes on where it was.

    Entering connects, so that nothing which happens after is missed; then iterate, once.
    """

    def __init__(self, client: Client, subscription: Subscription) -> None:
        self._client = client
        self._subscription = subscription
        self._response: httpx.Response | None = None

    @property
    def cursor(self) -> str | None:
        """Where another stream would go on."""
        return self._subscription.cursor

    def __enter__(self) -> Self:
        self._connect()
        return self

    def __iter__(self) -> Iterator[Event]:
        subscription = self._subscription
        while not subscription.over:
            if self._response is None and not self._connect():
                continue
            fault = None
            try:
                assert self._response is not None
                for chunk in self._response.iter_bytes():
                    yield from subscription.feed(chunk)
                    if subscription.over:
                        return
            except httpx.HTTPError as error:
                fault = self._client.fault_of(error)
            self.close()
            clock.sleep(subscription.lost(fault))

    def _connect(self) -> bool:
        subscription = self._subscription
        answer, self._response = self._client._open(subscription.call())
        try:
            if subscription.opened(answer):
                return True
        except BaseException:
            self.close()
            raise
        if not subscription.over:
            clock.sleep(subscription.lost(answer if isinstance(answer, Fault) else None))
        return False

    def close(self) -> None:
        """Let go of the connection."""
        if self._response is not None:
            with suppress(httpx.HTTPError):
                self._response.close()
            self._response = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
