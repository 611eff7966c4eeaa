"""Submitting: the store's part of a submit, and its count."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from callboard.errors import CallboardError, StoreUnavailable, Unconfirmed
from callboard.metrics import TASKS_SUBMITTED
from callboard.submit import Submission, Submitted, submit
from callboard_api.platform import Platform

logger = logging.getLogger("callboard.api")

#: Tasks sent by one call of a batch: what is lost with its reply.
_STEP: Final = 100


async def submit_one(platform: Platform, submission: Submission) -> Submitted:
    """Raises QueueFull, StoreFull, StoreUnavailable."""
    [reply] = await platform.run(submit(platform.keys, [submission], platform.limits))
    count(submission, reply)
    if reply.problem is not None:
        raise reply.problem
    return reply


async def submit_many(
    platform: Platform, submissions: Sequence[Submission]
) -> list[Submitted | CallboardError]:
    """What became of each, in order. When the store goes away between two steps, what was not sent or not
    answered gets its error; raises it when that is all of them.
    """
    replies: list[Submitted | CallboardError | None] = [None] * len(submissions)
    by_queue: dict[str, list[int]] = {}
    for index, submission in enumerate(submissions):
        by_queue.setdefault(submission.queue, []).append(index)
    steps = [
        indexes[start : start + _STEP]
        for indexes in by_queue.values()
        for start in range(0, len(indexes), _STEP)
    ]
    stored = False
    for number, step in enumerate(steps):
        chosen = [submissions[index] for index in step]
        try:
            found = await platform.run(submit(platform.keys, chosen, platform.limits))
        except StoreUnavailable as error:
            if not stored:
                raise
            for index in (index for later in steps[number:] for index in later):
                replies[index] = error
            break
        stored = True
        for index, reply in zip(step, found, strict=True):
            count(submissions[index], reply)
            replies[index] = reply.problem or reply
    return [reply for reply in replies if reply is not None]


def count(submission: Submission, reply: Submitted) -> None:
    """Count what has been stored, as safely as asked or not."""
    if reply.problem is None or isinstance(reply.problem, Unconfirmed):
        TASKS_SUBMITTED.labels(submission.queue, submission.name).inc()
