"""Submitting: the store's part of a submit, with the durability that the deployment asks for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from callboard.errors import CallboardError, StoreUnavailable
from callboard.metrics import TASKS_SUBMITTED
from callboard.storage.faults import translate
from callboard.storage.keys import QueueKeys
from callboard.submit import Submission, Submitted, submit
from callboard_api.platform import Platform
from callboard_api.problems import Rejected

logger = logging.getLogger("callboard.api")

#: Tasks sent by one call of a batch: what is lost with its reply.
_STEP: Final = 100
#: A replica that has not confirmed a write after so long counts as absent.
_CONFIRMED_WITHIN_MS: Final = 1000


async def submit_one(platform: Platform, submission: Submission) -> Submitted:
    """Raises QueueFull, StoreFull, StoreUnavailable, and Rejected (503) when no replica has confirmed it."""
    [reply] = await platform.run(submit(platform.keys, [submission], platform.limits))
    if reply.problem is not None:
        raise reply.problem
    TASKS_SUBMITTED.labels(submission.queue, submission.name).inc()
    if not await confirmed(platform, submission.queue):
        raise unconfirmed()
    return reply


async def submit_many(
    platform: Platform, submissions: Sequence[Submission]
) -> list[Submitted | CallboardError | Rejected]:
    """What became of each, in order. When the store goes away between two steps, what was not sent or not
    answered gets its error; raises it when that is all of them.
    """
    replies: list[Submitted | CallboardError | Rejected | None] = [None] * len(submissions)
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
            held = await confirmed(platform, chosen[0].queue)
        except StoreUnavailable as error:
            if not stored:
                raise
            for index in (index for later in steps[number:] for index in later):
                replies[index] = error
            break
        stored = True
        for index, reply in zip(step, found, strict=True):
            if reply.problem is None:
                TASKS_SUBMITTED.labels(submissions[index].queue, submissions[index].name).inc()
            replies[index] = reply.problem or (reply if held else unconfirmed())
    return [reply for reply in replies if reply is not None]


async def confirmed(platform: Platform, queue: str) -> bool:
    """Whether one replica has what was just written to `queue`; true unless that is asked for.

    Raises StoreUnavailable.
    """
    if platform.settings.durability != "replicated":
        return True
    client: Any = platform.connection.client
    keys = platform.keys.queue(queue)
    try:
        if platform.connection.address.kind == "cluster":
            replicas = await _cluster_wait(client, keys)
        else:
            # WAIT counts replicas that have the writes of *its own* connection, and the submit may have gone
            # over another of the pool. A write here, sent in one go with its WAIT, is behind that submit in
            # the replication stream, so a replica that has this one has both.
            pipe = client.pipeline(transaction=False)
            pipe.execute_command("HSET", keys.meta, "confirmed", "1")
            pipe.execute_command("WAIT", 1, _CONFIRMED_WITHIN_MS)
            replicas = (await pipe.execute())[1]
    except Exception as error:
        raise translate(error) from error
    return int(replicas) >= 1


async def _cluster_wait(client: Any, keys: QueueKeys) -> int:
    node = client.get_node_from_key(keys.meta)
    connection = node.acquire_connection()
    try:
        await connection.send_command("HSET", keys.meta, "confirmed", "1")
        await connection.send_command("WAIT", 1, _CONFIRMED_WITHIN_MS)
        await node.parse_response(connection, "HSET")
        return int(await node.parse_response(connection, "WAIT"))
    except BaseException:
        await connection.disconnect()
        raise
    finally:
        node.release(connection)


def unconfirmed() -> Rejected:
    """The problem of a task that is stored, but not as safely as asked."""
    return Rejected(
        "store-unavailable",
        "The task is stored, but no replica of Redis has confirmed it within "
        f"{_CONFIRMED_WITHIN_MS / 1000:g} s; sending it again may make a second one.",
    )
