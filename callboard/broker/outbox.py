"""Follow-ups: what a finished task sends on, such as the next message of a Dramatiq pipeline.

They travel inside the finish into the queue's outbox, and from there to their own queue by an idempotent
submit: so neither a lost reply nor a dead worker loses or doubles one.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgpack

from callboard.broker.submission import FOLLOW_UPS, Submission, submit
from callboard.storage.keys import Keys
from callboard.storage.operation import Operation


def pack(submission: Submission) -> bytes:
    """The outbox's form of a submission; it must carry its task id."""
    packed: bytes = msgpack.packb(asdict(submission))
    return packed


def deliver(keys: Keys, body: bytes) -> Operation[None]:
    """Submit what `pack` made; again is a no-op. Raises the problem that kept it from being stored."""
    fields: dict[str, Any] = msgpack.unpackb(body)
    [answer] = yield from submit(keys, [Submission(**fields)], FOLLOW_UPS)
    if answer.problem is not None:
        raise answer.problem
