"""The consumer that Dramatiq's own Worker and CLI iterate. A guest: Callboard's runner does not use it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import redis
from dramatiq import Consumer, DecodeError, MessageProxy
from dramatiq.errors import ConnectionClosed

from callboard import clock
from callboard.broker import turn
from callboard.broker.message import HeldMessage, decode
from callboard.broker.result import encode_result
from callboard.broker.settle import settle
from callboard.broker.submission import new_nonce
from callboard.broker.turn import Claim, Ending
from callboard.errors import CallboardError, StoreUnavailable
from callboard.records.layout import UndecodableRecord

if TYPE_CHECKING:
    from callboard.broker.broker import CallboardBroker
    from callboard.broker.guest import Guest

logger = logging.getLogger(__name__)

#: Held beyond this many, nothing more is claimed at once.
_CLAIM = 16


class CallboardConsumer(Consumer):
    """Messages of one queue. Failures of Redis leave as ConnectionClosed; requeue and close never raise."""

    def __init__(
        self, broker: CallboardBroker, guest: Guest, queue: str, prefetch: int, timeout_ms: int
    ) -> None:
        self._broker, self._guest, self._queue = broker, guest, queue
        self._prefetch = max(1, prefetch)
        self._timeout = timeout_ms / 1000
        self._buffer: deque[HeldMessage] = deque()
        self._outstanding = 0
        self._room = threading.Condition()
        self._nonce = ""
        # Wakes are waited for with a client of its own: the shared one must never block.
        self._bell: Any = None
        self._hot = True

    def __next__(self) -> HeldMessage | None:
        """The next message, or None after about the time-out."""
        if self._buffer:
            return self._buffer.popleft()
        deadline = clock.monotonic() + self._timeout
        with self._room:
            if not self._room.wait_for(lambda: self._outstanding < self._prefetch, timeout=self._timeout):
                return None
        try:
            due = None
            if not self._hot:
                self._listen(max(0.0, deadline - clock.monotonic()))
            self._hot, due = self._claim()
            if not self._buffer and due is not None and due < deadline - clock.monotonic():
                clock.sleep(due)
                self._hot, due = self._claim()
        except StoreUnavailable as error:
            raise ConnectionClosed(error) from error
        except redis.RedisError as error:
            raise ConnectionClosed(error) from error
        return self._buffer.popleft() if self._buffer else None

    def _claim(self) -> tuple[bool, float | None]:
        """Fill the buffer; whether more is likely to be there, and seconds until the next task is due."""
        with self._room:
            room = self._prefetch - self._outstanding
        self._nonce = self._nonce or new_nonce()
        reply = self._run(want=max(1, min(room, _CLAIM)), nonce=self._nonce)
        self._nonce = ""
        for claim in reply.claims:
            self._guest.keeper.hold(self._queue, claim.local, claim.token)
            held = self._decode(claim)
            if held is not None:
                with self._room:
                    self._outstanding += 1
                self._buffer.append(held)
        due = None if reply.next_due_ms is None else max(0.01, reply.next_due_ms / 1000)
        return bool(reply.claims), due

    def _decode(self, claim: Claim) -> HeldMessage | None:
        try:
            body, record = turn.decode(claim)
            if not body.message:
                raise UndecodableRecord("the task is no Dramatiq message: this worker runs only those")
            return HeldMessage(decode(body, record.options), claim.local, claim.token)
        except (UndecodableRecord, DecodeError) as error:
            told = turn.failure(type(error).__name__, str(error), retryable=False)
            ending = turn.failed(claim.local, claim.token, outcome="failed", reason="permanent", error=told)
            self._record(ending)
            return None

    def _listen(self, seconds: float) -> None:
        """Block until a wake token comes. Never with time-out 0, which would block for ever."""
        if self._bell is None:
            self._bell = self._broker.connection.blocking()
        self._bell.blpop([self._broker.keys.queue(self._queue).wake], timeout=max(0.01, round(seconds, 2)))

    def ack(self, message: MessageProxy) -> None:
        """Record the message's end. Raises ConnectionClosed, on which the Worker tries again."""
        self._settle(message)

    def nack(self, message: MessageProxy) -> None:
        """Record that the message failed. Raises ConnectionClosed."""
        self._settle(message)

    def _settle(self, message: MessageProxy) -> None:
        assert isinstance(message, HeldMessage)
        message.raised = message.raised or message._exception
        actor = self._broker.actors.get(message.actor_name)
        throws = message.options.get("throws") or (actor.options.get("throws") if actor else None)
        result = encode_result(message.result, message.actor_name)
        self._record(settle(message, result=result, throws=throws))
        with self._room:
            self._outstanding -= 1
            self._room.notify()

    def _record(self, ending: Ending) -> None:
        try:
            [answer] = self._run(endings=[ending]).answers
        except StoreUnavailable as error:
            raise ConnectionClosed(error) from error
        self._guest.keeper.drop(self._queue, ending.local, ending.token)
        if answer == "lost":
            logger.warning("The lease of %s_%s was lost; its outcome is refused.", self._queue, ending.local)
        elif ending.followers:
            self._guest.kick(self._queue)

    def _run(self, **words: Any) -> turn.TurnReply:
        connection = self._broker.connection
        return connection.run(turn.turn(connection.keys, self._queue, self._guest.worker, **words))

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give unstarted messages back, with their places; never raises."""
        for message in messages:
            if isinstance(message, HeldMessage):
                self._release(message)

    def _release(self, message: HeldMessage) -> None:
        try:
            self._record(turn.release(message.local, message.token, cause="shutdown"))
        except (CallboardError, ConnectionClosed) as error:
            logger.warning("%s was not given back (%s); its lease will run out.", message, error)
            self._guest.keeper.drop(self._queue, message.local, message.token)
        with self._room:
            self._outstanding -= 1
            self._room.notify()

    def close(self) -> None:
        """Give back what was not handed out; never raises."""
        while self._buffer:
            self._release(self._buffer.popleft())
        if self._bell is not None:
            self._bell.close()
            self._bell = None
