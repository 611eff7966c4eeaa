"""Our broker behind the face of Dramatiq's StubBroker, as far as its tests look at it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import dramatiq
import pytest
from dramatiq import Middleware, QueueNotFound
from dramatiq.brokers import stub
from dramatiq.common import q_name

from callboard import clock
from callboard.broker.broker import CallboardBroker
from callboard.broker.message import HeldMessage
from callboard.storage.operation import Command
from callboard.submit import submit


class StubFace(CallboardBroker):
    """Strict about undeclared queues, remembers what failed, and raises it in `join`."""

    def __init__(self, **options: Any) -> None:
        self.dead_letters_by_queue: defaultdict[str, list[Any]] = defaultdict(list)
        self.fail_fast_default = True
        self._consumers: dict[str, _Watched] = {}
        super().__init__(**options)
        self.queues: Any = _Queues(self)
        self.add_middleware(_Undertaker(self.dead_letters_by_queue))

    @property
    def dead_letters(self) -> list[Any]:
        """The messages of every queue that failed."""
        return list(chain.from_iterable(self.dead_letters_by_queue.values()))

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 100) -> Any:
        self._known(queue_name)
        watched = self._consumers[queue_name] = _Watched(super().consume(queue_name, prefetch, timeout))
        return watched

    def enqueue(self, message: Any, *, delay: int | None = None) -> Any:
        self._known(message.queue_name)
        sent = super().enqueue(message, delay=delay)
        # What is sent to their stub is with a consumer that has room when the call returns, and some of
        # their tests look into the worker at once.
        consumer = self._consumers.get(message.queue_name)
        at_once = not delay and not message.options.get("eta")
        if consumer is not None and at_once and threading.current_thread() is threading.main_thread():
            consumer.await_passing_on(sent.message_id)
        return sent

    def join(self, queue_name: str, *, timeout: int | None = None, fail_fast: bool | None = None) -> None:
        self._known(queue_name)
        super().join(queue_name, timeout=timeout)
        if self.fail_fast_default if fail_fast is None else fail_fast:
            for message in self.dead_letters_by_queue[queue_name]:
                raise message._exception or Exception("it failed for no reason")

    def flush_all(self) -> None:
        super().flush_all()
        for letters in self.dead_letters_by_queue.values():
            letters.clear()

    def _known(self, queue_name: str) -> None:
        if q_name(queue_name) not in self.queues:
            raise QueueNotFound(queue_name)


class _Watched(dramatiq.Consumer):
    """A consumer that knows what its thread has done with the messages that it got."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._last = ""
        self._passed_on: set[str] = set()
        self._asked = False
        for name in ("ack", "nack", "requeue", "close"):
            setattr(self, name, getattr(inner, name))

    def __next__(self) -> Any:
        # Who asks for the next one has put the last one where the worker's threads take it from.
        self._passed_on.add(self._last)
        self._asked = True
        try:
            message = next(self._inner)
        finally:
            self._asked = False
        self._last = message.message_id if message is not None else ""
        return message

    def await_passing_on(self, message_id: str) -> None:
        """Until that message is with the worker; not for long while nobody asks, or there is no room."""
        deadline, give_up = clock.monotonic() + 5, 0.0
        while message_id not in self._passed_on and clock.monotonic() < deadline:
            if self._asked and self._inner._outstanding < self._inner._prefetch:
                give_up = 0.0
            elif not give_up:
                give_up = clock.monotonic() + 0.02
            elif clock.monotonic() > give_up:
                return
            clock.sleep(0.001)


class _Undertaker(Middleware):
    # Before the rejection: what `join` sees as ended is here then.
    def __init__(self, letters: defaultdict[str, list[Any]]) -> None:
        self.letters = letters

    def before_nack(self, broker: Any, message: Any) -> None:
        self.letters[message.queue_name].append(message)


class _Queues(dict[str, "_Queue"]):
    """The declared queues, which their stub keeps as a dictionary and we as a set."""

    def __init__(self, broker: StubFace) -> None:
        super().__init__()
        self.broker = broker

    def add(self, name: str) -> None:
        self[name] = _Queue(self.broker, name)


class _Queue:
    """One of them, as their stub's `queue.Queue`, but in Redis."""

    def __init__(self, broker: StubFace, name: str) -> None:
        self.broker, self.name = broker, name

    def put(self, encoded: bytes) -> None:
        """Send a message as another program would have encoded it."""
        submission = self.broker.submission(dramatiq.Message.decode(encoded), None)
        self.broker.connection.run(submit(self.broker.keys, [submission]))

    def get(self, timeout: float) -> bytes:
        """Take the next message."""
        message: Any = next(self.broker.consume(self.name, timeout=int(timeout * 1000)))
        encoded: bytes = message.encode()
        return encoded

    def qsize(self) -> int:
        """Messages that wait, delayed ones too."""
        return sum(self._sizes()[:2])

    @property
    def unfinished_tasks(self) -> int:
        """Messages that have not ended."""
        return sum(self._sizes())

    def _sizes(self) -> list[int]:
        keys = self.broker.keys.queue(self.name)
        return [
            int(self.broker.connection.execute(Command("ZCARD", keys.state(state))))
            for state in ("queued", "pending", "running")
        ]


@contextmanager
def keeping_exceptions() -> Iterator[None]:
    """Their stub's messages keep their exception for `join`; ours do here, until a test takes that back."""
    clear = HeldMessage.clear_exception

    def keep_or_clear(message: HeldMessage) -> None:
        if stub._StubMessageProxy.clear_exception is dramatiq.MessageProxy.clear_exception:
            clear(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HeldMessage, "clear_exception", keep_or_clear)
        yield
