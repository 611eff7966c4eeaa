"""Dramatiq's messages as tasks: ids, priorities, attempts, and the proxy of one that is being processed."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from dramatiq import Message, MessageProxy
from dramatiq.encoder import Encoder
from dramatiq.message import get_encoder

from callboard.broker.submission import Submission, new_nonce
from callboard.records import layout
from callboard.records.ids import foreign_id

logger = logging.getLogger(__name__)

_DECADES = ((0, 5), (9, 6), (99, 7), (999, 8))


def priority_of(priority: int) -> int:
    """Our priority, 0 (first) to 9, for one of Dramatiq's, where less is sooner: by decade, monotone."""
    if priority < 0:
        return 10 - priority_of(-priority)
    return next((ours for highest, ours in _DECADES if priority <= highest), 9)


class HeldMessage(MessageProxy):
    """A claimed message. What hooks want done with it is kept here until the acknowledgement records it.

    `again_ms`: Retries, or another hook, enqueued the message itself, to run again after so many ms.
    `decided`: Retries has no say in its end; `final`: it fails for good.
    `skipped`: it ended by SkipMessage. `followers`: other messages that hooks sent on.
    """

    def __init__(self, message: Message[Any], local: str, token: str) -> None:
        super().__init__(message)
        self.local = local
        self.token = token
        self.again_ms: int | None = None
        self.decided = self.final = self.skipped = False
        self.followers: list[Submission] = []
        self.result: Any = None
        self.raised: BaseException | None = None

    def clear_exception(self) -> None:
        """Let go of the exception, whose frames may hold this message."""
        super().clear_exception()
        self.raised = None


def decode(body: layout.Immutable, record: layout.Mutable, queue: str, local: str) -> Message[Any]:
    """The message of a record. One that was submitted with a payload, over HTTP say, has it as arguments.

    The record's options replace those that it was sent with, after a retry. Raises dramatiq.DecodeError.
    """
    if body.message:
        message: Message[Any] = Message.decode(body.message)
    else:
        message = Message(
            queue_name=queue,
            actor_name=record.name.decode(),
            args=(),
            kwargs=json.loads(body.payload or b"{}"),
            options={},
            message_id=local,
            message_timestamp=record.created,
        )
    if record.options:
        fields: Mapping[str, Any] = _encoder().decode(record.options)
        message = message.copy()
        message.options.clear()
        message.options.update(fields)
    message.options.pop("eta", None)  # Dramatiq's Worker would park it in its memory
    return message


def encode_options(message: Message[Any] | MessageProxy) -> bytes:
    """The options for the next attempt."""
    options = {key: value for key, value in message.options.items() if key != "eta"}
    return _encoder().encode(options)


def submission_of(
    message: Message[Any], *, delay_ms: int | None, priority: int, max_attempts: int | None
) -> Submission:
    """The submission of a message. Its id derives from the message's; the nonce marks this enqueue call."""
    eta = message.options.get("eta")
    if "eta" in message.options and not isinstance(eta, int | float | None):
        logger.warning("Invalid eta value for message %r: %r; it is sent for now.", message.message_id, eta)
    return Submission(
        name=message.actor_name,
        queue=message.queue_name,
        message=message.encode(),
        task_id=foreign_id(message.queue_name, message.message_id),
        nonce=new_nonce(),
        delay_ms=max(0, int(delay_ms)) if delay_ms else 0,
        due_at_ms=int(eta) if isinstance(eta, int | float) and not delay_ms else 0,
        priority=priority,
        max_attempts=max_attempts,
    )


def _encoder() -> Encoder:
    return get_encoder()
