"""CallboardBroker: `dramatiq.set_broker(CallboardBroker(url))`, and an existing program is tracked."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any
from weakref import WeakSet

from dramatiq import Actor, Broker, Message, Middleware
from dramatiq.common import current_millis, q_name
from dramatiq.errors import ConnectionClosed, QueueJoinTimeout
from dramatiq.middleware import Retries

from callboard import clock, settings
from callboard.broker.actors import contract_of_actor
from callboard.broker.consumer import CallboardConsumer
from callboard.broker.guest import Guest
from callboard.broker.message import HeldMessage, priority_of, submission_of
from callboard.broker.purge import purge
from callboard.broker.submission import Submission, SubmitLimits, limits_of, submit
from callboard.catalog.contract import Contract
from callboard.context import current, current_or_none
from callboard.errors import StoreUnavailable
from callboard.records.ids import check_queue, foreign_id
from callboard.records.state import State
from callboard.storage import default
from callboard.storage.connection import Connection
from callboard.storage.keys import Keys
from callboard.storage.operation import Operation, ScriptCall
from callboard.storage.scripts import script

#: While hooks run after a message was processed: what they enqueue belongs to its end.
_ending: ContextVar[HeldMessage | None] = ContextVar("callboard_ending", default=None)
_JOIN_POLL_SECONDS = 0.02
_LIVE = script("callboard.broker", "live")


class CallboardBroker(Broker):
    """A Dramatiq broker on Callboard's records. Works on Callboard's worker and on Dramatiq's own.

    Parameters:
        url: Redis, as in `storage.address`; None: CALLBOARD_REDIS_URL.
        namespace: first part of every key; None: CALLBOARD_NAMESPACE.
        middleware: as Dramatiq's.
        connection: used instead of making one.

    Messages keep their ids: a task's id is `QUEUE_MESSAGE-ID`. Delays live in Redis, not in a worker; a
    retry is part of the acknowledgement. Failures of Redis leave as dramatiq.errors.ConnectionClosed.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str | None = None,
        middleware: list[Middleware] | None = None,
        connection: Connection | None = None,
    ) -> None:
        super().__init__(middleware=middleware)
        self.queues: set[str] = set()
        #: The Redis that it was given, if any.
        self.url = url
        self._namespace = namespace
        self._connection = connection
        self._guest: Guest | None = None
        self._contracts: dict[str, Contract | None] = {}
        self._lock = threading.RLock()
        self._submit_limits: tuple[SubmitLimits, SubmitLimits] | None = None
        _brokers.add(self)

    @property
    def connection(self) -> Connection:
        """The connection, made at first use, so that an import of the program needs no Redis."""
        if self._connection is None:
            with self._lock:
                return self._connect()
        return self._connection

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._made()
        return self._connection

    def _made(self) -> Connection:
        if self.url is None and self._namespace is None:
            return default.connection()
        known = settings.load()
        url = self.url or known.redis_url
        if url is None:
            raise StoreUnavailable(
                "No Redis is configured: give CallboardBroker(url) or CALLBOARD_REDIS_URL."
            )
        return Connection(url, namespace=self._namespace or known.namespace, events_keep=known.events_keep)

    @property
    def keys(self) -> Keys:
        """The keys of the connection."""
        return self.connection.keys

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> CallboardConsumer:
        """For Dramatiq's Worker: an iterator of messages. Starts what keeps their leases alive."""
        with self._lock:  # Worker has a thread for each queue, and all of them start at once
            if self._guest is None:
                self._guest = Guest(self.connection, lambda: sorted(self.queues), self.contracts)
                self._guest.start()
        return CallboardConsumer(self.connection, self.actors, self._guest, queue_name, prefetch, timeout)

    def contracts(self) -> list[Contract]:
        """The declared actors, for the catalog; the log tells of one that cannot be described."""
        for name, actor in list(self.actors.items()):
            if name in self._contracts:
                continue
            try:
                attempts = self.max_attempts(actor.options)
                self._contracts[name] = contract_of_actor(actor, self.middleware, attempts)
            except Exception as error:
                # It runs as ever: nobody but its description is missing.
                self.logger.warning("Actor %r is not in the catalog: %s", name, error)
                self._contracts[name] = None
        return [contract for name in list(self.actors) if (contract := self._contracts.get(name))]

    def declare_actor(self, actor: Actor[Any, Any]) -> None:
        """As Dramatiq's; the catalog learns of it while a Worker runs."""
        super().declare_actor(actor)
        if self._guest is not None:
            self._guest.declared()

    def declare_queue(self, queue_name: str) -> None:
        """Idempotent. Raises InvalidDeclaration for an impossible name."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(check_queue(queue_name))
            self.emit_after("declare_queue", queue_name)

    def get_declared_queues(self) -> set[str]:
        """The names of the declared queues."""
        return set(self.queues)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Submit `message`, `delay` ms from now if that is given.

        From a hook after a message was processed, it becomes part of that message's end.
        Raises ConnectionClosed, StoreFull.
        """
        held = _ending.get()
        task_id = self.task_id(message) if current_or_none() is not None else ""
        again = bool(task_id) and _is_run_of(current().id, task_id)
        if isinstance(message, HeldMessage):
            if not again and (held is message or held is None):
                return self._again(message, delay)
            message = message._message
        queue = q_name(message.queue_name)
        if queue != message.queue_name:
            message = message.copy(queue_name=queue)
        self.declare_queue(queue)
        self.emit_before("enqueue", message, delay)
        submission = self.submission(message, delay)
        if again:
            # Its own body sends it once more, while this run is live: a run beside it, not a resend.
            submission = replace(submission, task_id=f"{task_id}~{submission.nonce}")
        if held is not None:
            # A delay is from now, not from the delivery.
            due = current_millis() + submission.delay_ms if submission.delay_ms else submission.due_at_ms
            held.followers.append(replace(submission, delay_ms=0, due_at_ms=due))
        else:
            with self.faults():
                [answer] = self.connection.run(submit(self.keys, [submission], self._limits()))
                if answer.problem is not None:
                    raise answer.problem
        self.emit_after("enqueue", message, delay)
        return message

    def _again(self, message: HeldMessage, delay: int | None) -> Message[Any]:
        """A hook (Retries is one) enqueues the very message that it was called for."""
        self.emit_before("enqueue", message._message, delay)
        message.again_ms = max(0, int(delay or 0))
        self.emit_after("enqueue", message._message, delay)
        return message._message

    def _limits(self) -> SubmitLimits:
        if self._submit_limits is None:
            self._submit_limits = limits_of(settings.load())
        # What a running task goes on with was accepted with it, so it is refused last.
        return self._submit_limits[current_or_none() is not None]

    def submission(self, message: Message[Any], delay: int | None) -> Submission:
        """What `enqueue` would submit for `message`."""
        actor = self.actors.get(message.actor_name)
        return submission_of(
            message,
            delay_ms=delay,
            priority=priority_of(actor.priority if actor else 0),
            max_attempts=self.max_attempts({**(actor.options if actor else {}), **message.options}),
        )

    def max_attempts(self, options: Mapping[str, Any]) -> int | None:
        """Attempts by an actor's or a message's options, and by the middleware; None: endless."""
        retries = next((m for m in self.middleware if isinstance(m, Retries)), None)
        if retries is None:
            return 1
        if options.get("retry_when", retries.retry_when) is not None:
            return None
        most = options.get("max_retries", retries.max_retries)
        return None if most is None else int(most) + 1

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """As Dramatiq's; remembers what a message's hooks want until its end is recorded."""
        if signal != "process_message" or not args or not isinstance(args[0], HeldMessage):
            super().emit_after(signal, *args, **kwargs)
            return
        held = args[0]
        held.result, held.raised = kwargs.get("result"), kwargs.get("exception")
        token = _ending.set(held)
        try:
            if held.decided:
                self._emit_decided(held, **kwargs)
            else:
                super().emit_after(signal, *args, **kwargs)
        finally:
            _ending.reset(token)

    def _emit_decided(self, held: HeldMessage, **kwargs: Any) -> None:
        """The hooks of an end in which Retries has no say: all but its own."""
        for middleware in reversed(self.middleware):
            try:
                if not isinstance(middleware, Retries):
                    middleware.after_process_message(self, held, **kwargs)
                elif held.final:
                    held.fail()
            except Exception:
                self.logger.critical("after_process_message of %r failed.", middleware, exc_info=True)

    def task_id(self, message: Message[Any]) -> str:
        """The id of the task that `message` became; `callboard.handle` takes it."""
        return foreign_id(q_name(message.queue_name), message.message_id)

    def flush(self, queue_name: str) -> None:
        """Drop the waiting messages of a queue."""
        with self.faults():
            for state in (State.QUEUED, State.PENDING):
                self.connection.run(purge(self.keys, q_name(queue_name), state))

    def flush_all(self) -> None:
        """Drop the waiting messages of every declared queue."""
        for queue in sorted(self.queues):
            self.flush(queue)

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """For tests: block until a queue has no waiting and no running message; `timeout` in ms.

        A follow-up that its messages sent, to whichever queue, has arrived there by then.

        Raises QueueJoinTimeout.
        """
        deadline = None if timeout is None else clock.monotonic() + timeout / 1000
        while True:
            with self.faults():
                live = self.connection.run(_live(self.keys, q_name(queue_name)))
            if not live:
                return
            if deadline is not None and clock.monotonic() >= deadline:
                raise QueueJoinTimeout(queue_name)
            clock.sleep(_JOIN_POLL_SECONDS)

    def close(self) -> None:
        """Stop renewing leases and close the connections that this broker made."""
        if self._guest is not None:
            self._guest.stop()
            self._guest = None
        if self._connection is not None and (self.url or self._namespace):
            self._connection.close()

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Every trouble with the store as the error on which Dramatiq tries again."""
        try:
            yield
        except StoreUnavailable as error:
            raise ConnectionClosed(error) from error


_brokers: WeakSet[CallboardBroker] = WeakSet()


def _part_from_parent() -> None:
    # Whoever held a lock at the fork is not in the child. And the guest is the parent's: its threads are not
    # here, and closing it would take away the presence of a worker that lives.
    for broker in _brokers:
        broker._lock, broker._guest = threading.RLock(), None


os.register_at_fork(after_in_child=_part_from_parent)


def _live(keys: Keys, queue: str) -> Operation[int]:
    return int((yield ScriptCall(_LIVE, keys.queue(queue).prefix, ())))


def _is_run_of(task_id: str, first: str) -> bool:
    """Whether `task_id` is the first or a later run of a foreign id."""
    return task_id == first or task_id.startswith(f"{first}~")
