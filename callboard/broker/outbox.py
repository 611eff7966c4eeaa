"""Follow-ups: what a finished task sends on, such as the next message of a Dramatiq pipeline.

They travel inside the finish into the queue's outbox, and from there to their own queue by an idempotent
submit: so neither a lost reply nor a dead worker loses or doubles one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import msgpack

from callboard.broker.submission import FOLLOW_UPS, Submission, SubmitLimits, limits_of, submit
from callboard.settings import Settings
from callboard.storage.keys import Keys
from callboard.storage.operation import Operation

#: The courier shares its thread with the other loops, and what no replica has confirmed it sends again.
CONFIRMED_WITHIN_MS = 100


def pack(submission: Submission) -> bytes:
    """The outbox's form of a submission; it must carry its task id."""
    packed: bytes = msgpack.packb(asdict(submission))
    return packed


def delivering(known: Settings) -> Callable[[Keys, bytes], Operation[None]]:
    """`deliver` by the settings, for the courier.

    A full queue takes a follow-up all the same: it was accepted with the task that it follows.
    """
    _, limits = limits_of(known)
    within_ms = CONFIRMED_WITHIN_MS if limits.confirmed_within_ms else 0
    return partial(deliver, limits=replace(limits, queue_depth=0, confirmed_within_ms=within_ms))


def deliver(keys: Keys, body: bytes, limits: SubmitLimits = FOLLOW_UPS) -> Operation[None]:
    """Submit what `pack` made; again is a no-op. Raises the problem that kept it from being stored."""
    fields: dict[str, Any] = msgpack.unpackb(body)
    [answer] = yield from submit(keys, [Submission(**fields)], limits)
    if answer.problem is not None:
        raise answer.problem
