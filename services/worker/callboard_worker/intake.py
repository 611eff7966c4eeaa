"""The intake: a claim becomes an assignment, or ends at once because this worker cannot run it."""

from __future__ import annotations

from collections.abc import Mapping

from callboard.broker import message as messages
from callboard.broker import turn
from callboard.broker.message import HeldMessage
from callboard.broker.turn import Claim, Ending
from callboard.maintenance.policy import QUARANTINE_LOSSES
from callboard_worker.definition import Definition, limits
from callboard_worker.held import Held
from callboard_worker.slots.slot import Assignment


def take(queue: str, claim: Claim, known: Mapping[str, Definition]) -> Held | Ending:
    """What is to be run for `claim`.

    An Ending for a name that this worker does not know (it backs off, no attempt is spent) and for a record
    that cannot be decoded (it fails with the cause).
    """
    try:
        return _take(queue, claim, known)
    except Exception as error:
        # Whatever stands in a record or a message, it must not reach the tasks that were claimed beside it.
        told = turn.failure(type(error).__name__, str(error), retryable=False)
        return turn.failed(claim.local, claim.token, outcome="failed", reason="permanent", error=told)


def _take(queue: str, claim: Claim, known: Mapping[str, Definition]) -> Held | Ending:
    body, record = turn.decode(claim)
    name = record.name.decode()
    definition = known.get(name)
    if definition is None or (body.message and not definition.actor):
        return turn.unknown(claim.local, claim.token)
    message = None
    if definition.actor:
        message = HeldMessage(messages.decode(body, record, queue, claim.local), claim.local, claim.token)
    terms = definition.terms
    soft, hard = limits(definition, terms, message.options if message else None)
    assignment = Assignment(
        task_id=f"{queue}_{claim.local}",
        name=name,
        queue=queue,
        owner=record.owner.decode(),
        token=claim.token,
        attempt=record.attempt,
        max_attempts=None if record.max_attempts < 0 else record.max_attempts,
        payload=body.payload,
        message=((not record.options and body.message) or message.encode()) if message else None,
        soft_limit_ms=soft,
        hard_limit_ms=hard,
        memory_limit_bytes=terms.memory_limit_bytes,
    )
    return Held(
        claim,
        queue,
        definition,
        assignment,
        message,
        priority=record.priority,
        suspect=record.losses >= QUARANTINE_LOSSES - 1,
        wait_ms=record.wait if record.attempt == 1 else None,
    )
