"""From how a body ended to what is recorded: retry, fail, snooze, cancel. Pure, but for the jitter."""

from __future__ import annotations

import random
from typing import Any

from callboard.broker import outbox, turn
from callboard.broker.message import HeldMessage, encode_options
from callboard.broker.settle import settle
from callboard.broker.turn import Ending, Notes
from callboard_worker.held import Held
from callboard_worker.slots.slot import Outcome, TaskError

#: Why a task failed, for each way its last attempt can end (API, section 2).
_REASONS = {"timeout": "timeout", "memory": "memory", "crashed": "crashed"}


def ending_of(
    held: Held, outcome: Outcome, notes: Notes | None, stop_cause: str = "shutdown"
) -> Ending | None:
    """The operation that records `outcome`; None when nothing may be recorded (the lease is lost).

    stop_cause: why this worker ends bodies that have not failed.
    """
    local, token = held.claim.local, held.claim.token
    if held.asked == "lost":
        return None
    if outcome.kind == "lost":
        return turn.release(local, token, cause=stop_cause, notes=notes)
    if outcome.kind == "cancelled" or (held.asked in ("cancel", "terminate") and outcome.kind == "crashed"):
        reason = "terminated" if held.asked == "terminate" else "cancelled"
        return turn.cancelled(local, token, reason=reason, error=_error(outcome.error), notes=notes)
    if held.message is not None:
        return _of_message(held, held.message, outcome, notes)
    if outcome.kind == "completed":
        result = outcome.result or b""
        return turn.completed(local, token, b"" if result == b"null" else result, notes)
    if outcome.kind == "retry" and not outcome.counts:
        cause = outcome.error.message if outcome.error else "snoozed"
        return turn.snooze(local, token, cause=cause, delay_ms=_delay(held, outcome), notes=notes)
    return _failure(held, outcome, notes)


def _of_message(held: Held, message: HeldMessage, outcome: Outcome, notes: Notes | None) -> Ending:
    if outcome.kind == "retry" and not outcome.counts:
        return turn.snooze(
            message.local,
            message.token,
            cause=outcome.error.message if outcome.error else "snoozed",
            delay_ms=_delay(held, outcome),
            options=encode_options(message),
            notes=notes,
            followers=[outbox.pack(follower) for follower in message.followers],
        )
    # A hook left the body out, or the body itself wants it so: no failure, unless the message is rejected.
    skipped = outcome.error is None or message.skipped
    result = outcome.result or b""
    return settle(
        message,
        result=b"" if result == b"null" else result,
        outcome=outcome.kind if outcome.kind in _REASONS else "failed",
        error=None if skipped else _error(outcome.error),
        throws=message.options.get("throws") or held.definition.throws,
        notes=notes,
    )


def _failure(held: Held, outcome: Outcome, notes: Notes | None) -> Ending:
    local, token = held.claim.local, held.claim.token
    attempt = "failed" if outcome.kind == "retry" else outcome.kind
    error = _error(outcome.error)
    most = held.assignment.max_attempts
    final = outcome.error is not None and not outcome.error.retryable
    if not final and (most is None or held.assignment.attempt < most):
        return turn.retry(
            local, token, outcome=attempt, error=error, delay_ms=_delay(held, outcome), notes=notes
        )
    reason = "permanent" if final else _REASONS.get(attempt, "exhausted")
    return turn.failed(local, token, outcome=attempt, reason=reason, error=error, notes=notes)


def _delay(held: Held, outcome: Outcome) -> int:
    if outcome.retry_after_ms is not None:
        return outcome.retry_after_ms
    return held.definition.terms.backoff.delay_ms(held.assignment.attempt, random.random())


def _error(error: TaskError | None) -> bytes:
    if error is None:
        return turn.failure("Unknown", "The attempt ended without a cause.")
    fields: dict[str, Any] = {"retryable": error.retryable}
    return turn.failure(error.type, error.message, error.traceback, **fields)
