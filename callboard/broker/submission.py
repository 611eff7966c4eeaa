"""The write door: one way in for tasks, for the API, Python, schedules, retries of clients and Dramatiq."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgpack

from callboard import clock
from callboard.errors import CallboardError, Invalid, InvalidPayload, QueueFull, StoreFull, Unconfirmed
from callboard.records import ids, layout
from callboard.records.nesting import DEEPEST, too_deep
from callboard.records.state import State
from callboard.settings import Settings
from callboard.storage.keys import Keys
from callboard.storage.operation import Command, Confirmed, Operation, Pressure, ScriptCall, ScriptCalls
from callboard.storage.scripts import script

#: A payload, as JSON.
PAYLOAD_BYTES = 256 * 1024
#: One script call: longer ones would stall every other client of this Redis.
BATCH_TASKS, BATCH_BYTES = 100, 256 * 1024
#: What a submission takes beside its payload, about.
_RECORD_BYTES = 256
#: A replica that has not confirmed a submit after so long counts as absent.
CONFIRMED_WITHIN_MS = 1000
LONGEST_DELAY_MS = 3653 * 24 * 3600 * 1000
LONGEST_TEXT = 255
MOST_TAGS = 100
#: By how much a submitter's clock may be ahead of ours for its ten years.
_CLOCKS_APART_MS = 24 * 3600 * 1000
_WHOLE = {int}
_STATES = {state.value.encode(): state for state in State}
#: The highest number that msgpack carries, nearly; a fair step is as short long before.
_HEAVIEST = 2**63
#: Half a surrogate pair has no UTF-8; control characters part the fields of events.
_UNFIT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")

SUBMIT = script("callboard.broker", "submit")


# Nobody changes one; freezing it would double what making it costs, in each submit.
@dataclass(slots=True, kw_only=True)
class Submission:
    """A task to be accepted. Give `payload` (JSON object) or `message` (an encoded Dramatiq message).

    `delay_ms` and `expires_in_ms` count from Redis's now, `due_at_ms` is an instant; at most ten years ahead.
    `max_attempts` None: endless. `task_id` None: a new one; the same id sent again is accepted once. `nonce`
    marks one enqueue call of a foreign id. `priority`: 0 (first) to 9.

    Raises Invalid for what no script or no reader of the record could take.
    """

    name: str
    queue: str
    payload: Mapping[str, Any] | bytes | None = None
    message: bytes | None = None
    task_id: str | None = None
    nonce: str = ""
    delay_ms: int = 0
    due_at_ms: int = 0
    expires_in_ms: int = 0
    priority: int = 5
    fairness_key: str = ""
    weight: float = 1
    owner: str = "default"
    max_attempts: int | None = 4
    tags: Sequence[str] = field(default=())
    traceparent: str = ""
    resubmitted_from: str = ""
    schedule_id: str = ""
    parent_id: str = ""

    def __post_init__(self) -> None:
        words = (self.name, self.owner, self.fairness_key, *self.tags)
        try:
            text = "".join(words)
            fit = not _UNFIT.search(text) and (
                len(text) <= LONGEST_TEXT or max(map(len, words)) <= LONGEST_TEXT
            )
        except TypeError:
            fit = False
        if not fit:
            raise Invalid(
                f"Names, owners, fairness keys and tags are texts of at most {LONGEST_TEXT} characters, no "
                f"control characters; got {str(words)[:1000]}."
            )
        if isinstance(self.tags, str) or len(self.tags) > MOST_TAGS:
            raise Invalid(f"tags: expected at most {MOST_TAGS} words.")
        numbers = (self.delay_ms, self.due_at_ms, self.expires_in_ms, self.priority)
        # A number with a fraction would come back as one, where readers expect none.
        # True and False are numbers here and none in a script.
        whole = set(map(type, numbers)) == _WHOLE or all(map(_is_whole, numbers))
        real = isinstance(self.weight, float) or _is_whole(self.weight)
        if not (whole and real and 0 < self.weight < _HEAVIEST):
            raise Invalid(
                f"Expected whole numbers and a weight above 0, below 2^63; got {numbers}, {self.weight}."
            )
        latest = LONGEST_DELAY_MS
        if self.due_at_ms:
            latest += clock.now_ms() + _CLOCKS_APART_MS
        if max(numbers) > latest:
            raise Invalid("A task is due, and expires, at most ten years from now.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# As above: one for each submit.
@dataclass(slots=True)
class Submitted:
    """The answer to one submission: its id and state, or the `problem` met while storing it.

    `created_at`: ms by Redis's clock; None when nothing new was stored (a resend, a problem).
    """

    id: str
    state: State
    problem: CallboardError | None = None
    created_at: int | None = None


@dataclass(frozen=True, slots=True)
class SubmitLimits:
    """What a submit is refused for. Shares are of Redis's maxmemory; depth counts pending and queued.

    `confirmed_within_ms`: how long to wait for a replica that has it (`replicated`); 0: not at all.
    """

    memory_share: float = 0.80
    queue_depth: int = 0
    confirmed_within_ms: int = 0


NEW_WORK = SubmitLimits()
#: For follow-ups of running tasks: refused later than new work, for refusing them would lose work.
FOLLOW_UPS = SubmitLimits(memory_share=0.95)


def limits_of(known: Settings) -> tuple[SubmitLimits, SubmitLimits]:
    """The limits that the settings ask for: of new work, and of what running tasks submit."""
    depth = known.queue_max_depth
    within_ms = CONFIRMED_WITHIN_MS if known.durability == "replicated" else 0
    return (
        SubmitLimits(known.memory_submit_percent / 100, depth, within_ms),
        SubmitLimits(known.memory_followup_percent / 100, depth, within_ms),
    )


def submit(
    keys: Keys, submissions: Sequence[Submission], limits: SubmitLimits = NEW_WORK
) -> Operation[list[Submitted]]:
    """Accept `submissions`, in order; one script call for each 100 tasks or 256 KiB of a queue.

    Not atomic over calls: an item that could not be stored carries a `problem` (QueueFull, StoreFull), and so
    does one that is stored but that no replica has confirmed as `limits` ask (Unconfirmed). Raises
    InvalidPayload for a payload that is no JSON or too large, and InvalidDeclaration for what cannot name a
    queue, before anything is stored.
    """
    named = [_named(submission) for submission in submissions]
    replies: list[Submitted | None] = [None] * len(submissions)
    queues = {ids.check_queue(queue): indexes for queue, indexes in _by_queue(submissions).items()}
    for queue, indexes in queues.items():
        queue_keys = keys.queue(queue)
        if (yield Pressure(queue_keys.prefix)) >= limits.memory_share:
            for index in indexes:
                full = StoreFull(
                    f"Redis is above {limits.memory_share:.0%} of its memory; "
                    "new tasks are refused until it is below."
                )
                replies[index] = Submitted(f"{queue}_{named[index][0]}", State.PENDING, full)
            continue
        if keys.unregistered((queue,)):
            yield Command("SADD", keys.queues, queue)
            keys.note_registered(queue)
        chunks = list(_chunks(indexes, named))
        calls = (
            ScriptCall(
                SUBMIT,
                queue_keys.prefix,
                (limits.queue_depth, *(pack(submissions[index], *named[index]) for index in chunk)),
            )
            for chunk in chunks
        )
        answers = [(yield next(calls))] if len(chunks) == 1 else (yield ScriptCalls(calls))
        for chunk, answer in zip(chunks, answers, strict=True):
            for index, line in zip(chunk, answer.split(b"\n"), strict=True):
                replies[index] = reply_of(f"{queue}_{named[index][0]}", line, limits)
        if limits.confirmed_within_ms and not (yield Confirmed(queue_keys.meta, limits.confirmed_within_ms)):
            for index in indexes:
                reply = replies[index]
                if reply is not None and reply.problem is None:
                    replies[index] = replace(reply, problem=Unconfirmed(reply.id, limits.confirmed_within_ms))
    return [reply for reply in replies if reply is not None]


def reply_of(task_id: str, line: bytes, limits: SubmitLimits) -> Submitted:
    """The answer that the script's line for the task of this id means."""
    state, created, *other = line.split(b" ")
    if other:
        task_id = f"{ids.queue_of(task_id)}_{other[0].decode()}"
    if state == b"full":
        held = f"Queue {ids.queue_of(task_id)!r} holds {limits.queue_depth} waiting tasks, as many as it may."
        return Submitted(task_id, State.PENDING, QueueFull(held))
    if state == b"deleted":  # a resend of a submit whose task has been deleted since
        return Submitted(task_id, State.CANCELLED)
    return Submitted(task_id, _STATES[state], created_at=int(created) or None)


def _by_queue(submissions: Sequence[Submission]) -> dict[str, list[int]]:
    queues: dict[str, list[int]] = {}
    for index, submission in enumerate(submissions):
        queues.setdefault(submission.queue, []).append(index)
    return queues


def _chunks(indexes: Sequence[int], named: Sequence[tuple[str, bytes]]) -> Iterator[list[int]]:
    chunk: list[int] = []
    size = 0
    for index in indexes:
        length = len(named[index][1]) + _RECORD_BYTES
        if chunk and (len(chunk) >= BATCH_TASKS or size + length > BATCH_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(index)
        size += length
    if chunk:
        yield chunk


def encode_payload(payload: Mapping[str, Any] | bytes | None) -> bytes:
    """A payload as JSON. Raises InvalidPayload when it is none or longer than PAYLOAD_BYTES."""
    if isinstance(payload, bytes):
        encoded = payload
    else:
        try:
            encoded = json.dumps(
                payload or {}, separators=(",", ":"), allow_nan=False, ensure_ascii=False
            ).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidPayload(f"The payload is not JSON: {error}") from error
    if len(encoded) > PAYLOAD_BYTES:
        raise InvalidPayload(
            f"The payload is {len(encoded):,} bytes of JSON; at most {PAYLOAD_BYTES:,} are allowed. "
            "Store it elsewhere and send a reference."
        )
    if too_deep(encoded):
        raise InvalidPayload(f"The payload is nested deeper than {DEEPEST} levels.")
    return encoded


def new_nonce() -> str:
    """12 random characters that mark one call."""
    return secrets.token_hex(6)


def _named(s: Submission) -> tuple[str, bytes]:
    """The local id and the payload, or the message; raises for what cannot be stored."""
    content = encode_payload(s.payload) if s.message is None else s.message
    if not s.task_id:
        return ids.new_local(), content
    home, local = ids.split(s.task_id)
    if home != s.queue:
        raise Invalid(f"Task id {s.task_id!r} names another queue than {s.queue!r}.")
    return local, content


def body_of(s: Submission, content: bytes) -> layout.Immutable:
    """What never changes of the task."""
    return layout.Immutable(
        content if s.message is None else b"",
        b"" if s.message is None else content,
        list(s.tags),
        s.traceparent,
        s.resubmitted_from,
        s.schedule_id,
        s.parent_id,
    )


def pack(s: Submission, local: str, content: bytes) -> bytes:
    """One task as the script takes it: first its local id and its body, then what the submission says."""
    fairness_key = s.fairness_key or s.owner
    most = -1 if s.max_attempts is None else s.max_attempts
    sides = layout.sides(fairness_key, s.weight, s.name, s.owner, most, s.nonce)
    said = [local, body_of(s, content).pack(), s.name, s.owner, fairness_key, s.weight, s.priority, *sides]
    if s.delay_ms or s.due_at_ms or s.expires_in_ms or s.nonce:
        said += (s.delay_ms, s.due_at_ms, s.expires_in_ms, s.nonce)
    packed: bytes = msgpack.packb(said, use_bin_type=False)
    return packed
