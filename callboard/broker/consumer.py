"""The consumer that Dramatiq's own Worker and CLI iterate. A guest: Callboard's runner does not use it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any

import redis
from dramatiq import Actor, Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed

from callboard import clock
from callboard.broker import turn
from callboard.broker.guest import Guest
from callboard.broker.message import HeldMessage, decode
from callboard.broker.result import encode_actor_result
from callboard.broker.settle import settle
from callboard.broker.submission import new_nonce
from callboard.broker.turn import Claim, Ending
from callboard.errors import CallboardError, StoreFull, StoreUnavailable
from callboard.storage.connection import Connection

logger = logging.getLogger(__name__)

#: Held beyond this many, nothing more is claimed at once.
_CLAIM = 16


class CallboardConsumer(Consumer):
    """Messages of one queue. Failures of Redis leave as ConnectionClosed; requeue and close never raise."""

    def __init__(
        self,
        connection: Connection,
        actors: Mapping[str, Actor[Any, Any]],
        guest: Guest,
        queue: str,
        prefetch: int,
        timeout_ms: int,
    ) -> None:
        self._connection, self._actors, self._guest, self._queue = connection, actors, guest, queue
        self._prefetch = max(1, prefetch)
        self._timeout = timeout_ms / 1000
        self._buffer: deque[HeldMessage] = deque()
        self._outstanding = 0
        self._room = threading.Condition()
        # Wakes are waited for with a client of its own: the shared one must never block.
        self._bell: Any = None
        self._hot = True
        self._due = inf

    def __next__(self) -> HeldMessage | None:
        """The next message, or None after about the time-out."""
        deadline = clock.monotonic() + self._timeout
        if not self._buffer:
            with self._room:
                if not self._room.wait_for(lambda: self._outstanding < self._prefetch, timeout=self._timeout):
                    return None
        while not self._buffer:
            try:
                if not self._hot:
                    self._listen(min(deadline, self._due) - clock.monotonic())
                self._claim()
            except (StoreUnavailable, redis.RedisError) as error:
                raise ConnectionClosed(error) from error
            if not self._buffer and clock.monotonic() >= deadline:
                return None
        return self._buffer.popleft()

    def _claim(self) -> None:
        """Fill the buffer. `_hot`: more is likely to be there; `_due`: when the next task is, monotonic."""
        with self._room:
            room = self._prefetch - self._outstanding
        # Worker makes a new consumer after an error: what its predecessor claimed is asked for by the guest.
        nonce = self._guest.unanswered.pop(self._queue, "") or new_nonce()
        try:
            reply = self._run(want=max(1, min(room, _CLAIM)), nonce=nonce)
        except BaseException:
            self._guest.unanswered[self._queue] = nonce
            raise
        for claim in reply.claims:
            self._guest.keeper.hold(self._queue, claim.local, claim.token)
        for claim in reply.claims:
            held = self._decode(claim)
            if held is not None:
                with self._room:
                    self._outstanding += 1
                self._buffer.append(held)
        self._hot = bool(reply.claims) and reply.left > 0
        known = reply.next_due_ms is not None and not reply.paused
        self._due = clock.monotonic() + reply.next_due_ms / 1000 if known else inf  # type: ignore[operator]

    def _decode(self, claim: Claim) -> HeldMessage | None:
        try:
            body, record = turn.decode(claim)
            if not body.message and record.name.decode() not in self._actors:
                # A task of Callboard's own in the same queue waits for a Callboard worker.
                self._refuse(turn.unknown(claim.local, claim.token))
                return None
            message = decode(body, record, self._queue, claim.local)
            return HeldMessage(message, claim.local, claim.token)
        except Exception as error:
            # Whatever stands in a record or a message, it must not reach those that were claimed beside it.
            told = turn.failure(type(error).__name__, str(error), retryable=False)
            ending = turn.failed(claim.local, claim.token, outcome="failed", reason="permanent", error=told)
            self._refuse(ending)
            return None

    def _refuse(self, ending: Ending) -> None:
        """The end of what cannot be handed out; without Redis its lease runs out."""
        try:
            self._record(ending)
        except ConnectionClosed as error:
            logger.warning("%s_%s was not given back: %s", self._queue, ending.local, error)
            self._guest.keeper.drop(self._queue, ending.local, ending.token)

    def _listen(self, seconds: float) -> None:
        """Block until a wake token comes. Never with time-out 0, which would block for ever."""
        if self._bell is None:
            self._bell = self._connection.blocking(self._timeout)
        self._bell.blpop(
            [self._connection.keys.queue(self._queue).wake], timeout=max(0.01, round(seconds, 3))
        )

    def ack(self, message: MessageProxy) -> None:
        """Record the message's end. Raises ConnectionClosed, on which the Worker tries again."""
        self._settle(message)

    def nack(self, message: MessageProxy) -> None:
        """Record that the message failed. Raises ConnectionClosed."""
        self._settle(message)

    def _settle(self, message: MessageProxy) -> None:
        if not isinstance(message, HeldMessage):
            logger.warning("%s is no message of this consumer's; its end is not recorded.", message)
            return
        self._record(self._ending_of(message))
        self._part()

    def _ending_of(self, message: HeldMessage) -> Ending:
        message.raised = message.raised or message._exception
        actor = self._actors.get(message.actor_name)
        throws = message.options.get("throws") or (actor.options.get("throws") if actor else None)
        result = encode_actor_result(message.result, message.actor_name)
        try:
            return settle(message, result=result, throws=throws)
        except Exception as error:
            # Such as options that a hook has made unfit for the encoder.
            logger.exception("The end of %s cannot be encoded.", message)
            told = turn.failure(type(error).__name__, str(error), retryable=False)
            return turn.failed(message.local, message.token, outcome="failed", reason="permanent", error=told)

    def _record(self, ending: Ending) -> None:
        try:
            [answer] = self._run(endings=[ending]).answers
        except (StoreUnavailable, StoreFull) as error:
            raise ConnectionClosed(error) from error
        except CallboardError as error:
            logger.error("Redis refuses the end of %s_%s: %s", self._queue, ending.local, error)
            answer = "lost"  # no longer renewed, it will be: and run again
        self._guest.keeper.drop(self._queue, ending.local, ending.token)
        if answer == "lost":
            logger.warning("The lease of %s_%s was lost; its outcome is refused.", self._queue, ending.local)
        elif ending.followers:
            self._guest.kick(self._queue)

    def _part(self) -> None:
        with self._room:
            self._outstanding -= 1
            self._room.notify()

    def _run(self, **words: Any) -> turn.TurnReply:
        connection = self._connection
        lease_ms = self._guest.lease_ms
        return connection.run(
            turn.turn(connection.keys, self._queue, self._guest.worker, lease_ms=lease_ms, **words)
        )

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give unstarted messages back, with their places; never raises."""
        for message in messages:
            if isinstance(message, HeldMessage):
                self._release(message)

    def _release(self, message: HeldMessage) -> None:
        self._refuse(turn.release(message.local, message.token, cause="shutdown", started=False))
        self._part()

    def close(self) -> None:
        """Give back what was not handed out; never raises."""
        while self._buffer:
            self._release(self._buffer.popleft())
        if self._bell is not None:
            self._bell.close()
            self._bell = None
