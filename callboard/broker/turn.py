"""A turn: record what is done and claim what is next, in one round trip."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgpack

from callboard.records import layout
from callboard.storage.keys import Keys
from callboard.storage.operation import Argument, Command, Operation, ScriptCall
from callboard.storage.scripts import script

_TURN = script("callboard.broker", "turn")
_RENEW = script("callboard.broker", "renew")
_NOTE = script("callboard.broker", "note")
_FORGET = script("callboard.broker", "forget")

#: Operations of one turn, and their bytes: a longer script would stall every other client.
FLUSH_TASKS, FLUSH_BYTES = 64, 256 * 1024
#: Tasks claimed by one turn.
CLAIM_TASKS = 64
#: Leases renewed by one call.
RENEW_TASKS = 100

Answer = Literal["ok", "already", "lost"]


class Claim(NamedTuple):
    """A claimed task as the store gives it; `body` and `record` decode with records/layout."""

    local: str
    token: str
    body: bytes
    record: bytes


@dataclass(frozen=True, slots=True)
class TurnReply:
    """`answers` to the operations, in order; what was claimed; ms until the next task is due (None: none)."""

    answers: list[Answer]
    claims: list[Claim]
    next_due_ms: int | None
    left: int
    paused: bool


@dataclass(slots=True)
class Notes:
    """What a task has told since the last write. `lines` are packed (layout.log_line)."""

    progress: bytes = b""
    progress_seq: int = 0
    first_line: int = 1
    lines: Sequence[bytes] = ()


_SILENT = Notes()


class Ending(NamedTuple):
    """One operation of a turn, packed. `followers` are outbox bodies that it carries, for prompt delivery."""

    local: str
    token: str
    packed: bytes
    terminal: bool
    followers: tuple[bytes, ...] = ()


def _ending(
    kind: str,
    local: str,
    token: str,
    notes: Notes | None,
    *rest: Any,
    terminal: bool = False,
    followers: tuple[bytes, ...] = (),
) -> Ending:
    told = notes or _SILENT
    packed: bytes = msgpack.packb(
        [kind, local, token, told.progress, told.progress_seq, told.first_line, list(told.lines), *rest],
        use_bin_type=False,
    )
    return Ending(local, token, packed, terminal, followers)


def completed(
    local: str, token: str, result: bytes, notes: Notes | None = None, followers: Sequence[bytes] = ()
) -> Ending:
    """The body returned; `result` is JSON, b"" for null."""
    return _ending(
        "completed", local, token, notes, result, list(followers), terminal=True, followers=tuple(followers)
    )


def failed(
    local: str,
    token: str,
    *,
    outcome: str,
    reason: str,
    error: bytes,
    notes: Notes | None = None,
    followers: Sequence[bytes] = (),
) -> Ending:
    """The last attempt failed. `outcome`: the attempt's, `reason`: the task's, `error`: see `failure`."""
    return _ending(
        "failed",
        local,
        token,
        notes,
        outcome,
        reason,
        error,
        list(followers),
        terminal=True,
        followers=tuple(followers),
    )


def retry(
    local: str,
    token: str,
    *,
    outcome: str,
    error: bytes,
    delay_ms: int,
    options: bytes = b"",
    notes: Notes | None = None,
    followers: Sequence[bytes] = (),
) -> Ending:
    """An attempt failed and another follows in `delay_ms`. `options`: Dramatiq's, for the next attempt."""
    return _ending(
        "retry",
        local,
        token,
        notes,
        outcome,
        error,
        delay_ms,
        options,
        list(followers),
        followers=tuple(followers),
    )


def snooze(
    local: str,
    token: str,
    *,
    cause: str,
    delay_ms: int,
    options: bytes = b"",
    notes: Notes | None = None,
    followers: Sequence[bytes] = (),
) -> Ending:
    """Run again in `delay_ms`; no attempt is spent. `options`: Dramatiq's, for the next attempt."""
    return _ending(
        "snooze",
        local,
        token,
        notes,
        cause,
        delay_ms,
        options,
        list(followers),
        followers=tuple(followers),
    )


def release(
    local: str, token: str, *, cause: str, notes: Notes | None = None, started: bool = True
) -> Ending:
    """Back to the queue with the same score; no attempt is spent. `started`: whether its body ever ran."""
    return _ending("release", local, token, notes, cause, int(started))


def unknown(local: str, token: str) -> Ending:
    """This worker has no code for the name: back to pending with a growing delay."""
    return _ending("unknown", local, token, None)


def cancelled(local: str, token: str, *, reason: str, error: bytes, notes: Notes | None = None) -> Ending:
    """The body was stopped because somebody asked for it; `reason` cancelled or terminated."""
    return _ending("cancelled", local, token, notes, reason, error, terminal=True)


def failure(type_: str, message: str, traceback: str | None = None, *, retryable: bool = True) -> bytes:
    """The JSON of an attempt's error."""
    return json.dumps(
        {"type": type_, "message": message, "traceback": traceback, "retryable": retryable},
        separators=(",", ":"),
        ensure_ascii=False,
    ).encode("utf-8", "backslashreplace")


def turn(
    keys: Keys,
    queue: str,
    worker: str,
    *,
    endings: Sequence[Ending] = (),
    want: int = 0,
    nonce: str = "",
    lease_ms: int = 20_000,
) -> Operation[TurnReply]:
    """Record `endings` (≤ FLUSH_TASKS) and claim up to `want` tasks for `worker`.

    `nonce` marks this claim: sent again, it gives the same tasks again.
    """
    args: tuple[Argument, ...] = (worker, nonce, want, lease_ms, *(ending.packed for ending in endings))
    answers, claims, due, left, paused = yield ScriptCall(_TURN, keys.queue(queue).prefix, args)
    return TurnReply(
        [answer.decode() for answer in answers],
        [Claim(local.decode(), token.decode(), body, record) for local, token, body, record in claims],
        None if due < 0 else int(due),
        int(left),
        bool(paused),
    )


def renew(
    keys: Keys, queue: str, held: Sequence[tuple[str, str]], lease_ms: int
) -> Operation[list[Literal["ok", "cancel", "terminate", "lost"]]]:
    """Renew the leases of `held` (local id, token); per task whether it goes on, is to stop, or is lost."""
    answers: list[Any] = []
    for start in range(0, len(held), RENEW_TASKS):
        words = [word for pair in held[start : start + RENEW_TASKS] for word in pair]
        reply = yield ScriptCall(_RENEW, keys.queue(queue).prefix, (lease_ms, *words))
        answers += [answer.decode() for answer in reply]
    return answers


def note(keys: Keys, queue: str, told: Iterable[tuple[str, str, Notes]]) -> Operation[list[Answer]]:
    """Write progress and log lines of running tasks: (local id, token, notes)."""
    packed = [
        msgpack.packb(
            [local, token, n.progress, n.progress_seq, n.first_line, list(n.lines)], use_bin_type=False
        )
        for local, token, n in told
    ]
    if not packed:
        return []
    return [answer.decode() for answer in (yield ScriptCall(_NOTE, keys.queue(queue).prefix, packed))]


def forget(keys: Keys, queue: str, worker: str) -> Operation[None]:
    """Drop what is remembered of a consumer's last claim, when it closes."""
    yield ScriptCall(_FORGET, keys.queue(queue).prefix, (worker,))


def pass_on(keys: Keys, queue: str) -> Operation[None]:
    """Give a wake token back that this consumer cannot use."""
    yield Command("LPUSH", keys.queue(queue).wake, "1")


def decode(claim: Claim) -> tuple[layout.Immutable, layout.Mutable]:
    """Both halves of a claimed record. Raises UndecodableRecord."""
    return layout.Immutable.unpack(claim.body), layout.Mutable.unpack(claim.record)
