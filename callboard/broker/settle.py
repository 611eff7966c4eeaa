"""How a processed Dramatiq message ends: its proxy, after the hooks, becomes one operation of a turn."""

from __future__ import annotations

import traceback as traceback_module
from typing import Any

from dramatiq.errors import ActorNotFound
from dramatiq.middleware import SkipMessage

from callboard.broker import outbox, turn
from callboard.broker.message import HeldMessage, encode_options
from callboard.broker.turn import Ending, Notes

_TRACEBACK_CHARS = 16 * 1024
#: Never about the body: it was left out, or nobody has it.
_FINAL = (SkipMessage, ActorNotFound)


def settle(
    held: HeldMessage,
    *,
    result: bytes,
    outcome: str = "failed",
    error: bytes | None = None,
    throws: Any = None,
    notes: Notes | None = None,
) -> Ending:
    """The ending of `held`.

    `result`: JSON of what the actor returned; `outcome` and `error`: the attempt's, where it was not an
    exception seen here (a child that crashed). `throws`: exceptions that the actor declares as final.
    """
    raised = held.raised
    followers = [outbox.pack(follower) for follower in held.followers]
    good = raised is None and error is None and not held.failed
    again = None if held.failed else held.again_ms
    if good and again is not None:
        return turn.snooze(
            held.local,
            held.token,
            cause="enqueued again",
            delay_ms=again,
            options=encode_options(held),
            notes=notes,
            followers=followers,
        )
    if good:
        return turn.completed(held.local, held.token, result, notes, followers)
    final = held.final or isinstance(raised, _FINAL) or (bool(throws) and isinstance(raised, throws))
    told = error or failure_of(raised, retryable=not final)
    if again is not None:
        return turn.retry(
            held.local,
            held.token,
            outcome=outcome,
            error=told,
            delay_ms=again,
            options=encode_options(held),
            notes=notes,
            followers=followers,
        )
    reason = "permanent" if final or raised is None else "exhausted"
    if outcome != "failed":
        reason = outcome
    return turn.failed(
        held.local,
        held.token,
        outcome=outcome,
        reason=reason,
        error=told,
        notes=notes,
        followers=followers,
    )


def failure_of(raised: BaseException | None, *, retryable: bool = True) -> bytes:
    """The JSON of an exception, its traceback cut to the newest 16 KiB."""
    if raised is None:
        return turn.failure("Rejected", "The message was rejected.", retryable=False)
    text = "".join(traceback_module.format_exception(raised))[-_TRACEBACK_CHARS:]
    return turn.failure(type(raised).__name__, str(raised), text, retryable=retryable)
