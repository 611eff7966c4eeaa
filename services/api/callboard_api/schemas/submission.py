"""Submissions: the body of a submit, read, and held against the catalog."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from starlette.types import Scope

from callboard import clock
from callboard.catalog.published import PublishedTask
from callboard.errors import UnknownQueue, UnknownTask
from callboard.submit import LONGEST_DELAY_MS, PAYLOAD_BYTES, Submission
from callboard_api.catalog import Snapshot, known_queue, known_task
from callboard_api.payloads import PayloadChecker
from callboard_api.schemas.fields import Faults, Fields, kind

#: An upper bound, so that a typing error does not retry for years; null is endless, on purpose.
MOST_ATTEMPTS: Final = 10_000
MOST_TAGS: Final = 50
LONGEST_TAG: Final = 128
LONGEST_NAME: Final = 255
LONGEST_KEY: Final = 200
_NOT_YET: Final = ("unique", "after", "callback_url")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class _Unset(Enum):
    UNSET = "unset"


UNSET: Final = _Unset.UNSET


@dataclass(frozen=True, slots=True)
class Wish:
    """What a body asks for, before the catalog has been looked at. None: as the contract says.

    `payload` None: none was given. `max_attempts` None: endless.
    """

    name: str | None
    payload: Mapping[str, Any] | None
    queue: str | None
    delay_ms: int | None
    due_at_ms: int | None
    priority: int | None
    fairness_key: str | None
    tags: tuple[str, ...]
    expires_in_ms: int | None
    max_attempts: int | _Unset | None
    pointer: str


def read_wish(value: Any, faults: Faults, pointer: str = "#", *, named: bool = True) -> Wish:
    """Read a body; what is wrong goes to `faults`. `named`: it has to name its task (a resubmit does not)."""
    fields = Fields(value, faults, pointer)
    name = fields.text("name", longest=LONGEST_NAME, required=True) if named else None
    payload = fields.take("payload", UNSET)
    if payload is not UNSET and not isinstance(payload, dict):
        fields.fault("payload", f"Expected an object; got {kind(payload)}.", "type")
    delay_ms = fields.milliseconds("delay_seconds", longest_ms=LONGEST_DELAY_MS, zero=True)
    due_at_ms = fields.instant("run_at")
    if delay_ms is not None and due_at_ms is not None:
        fields.fault("run_at", "Give delay_seconds or run_at, not both.")
    if due_at_ms is not None and due_at_ms > clock.now_ms() + LONGEST_DELAY_MS:
        fields.fault("run_at", "At most ten years ahead.")
    wish = Wish(
        name=name,
        payload=payload if isinstance(payload, dict) else None,
        queue=fields.text("queue", longest=64),
        delay_ms=delay_ms,
        due_at_ms=due_at_ms,
        priority=fields.integer("priority", 0, 9),
        fairness_key=fields.text("fairness_key", longest=LONGEST_KEY),
        tags=fields.words("tags", most=MOST_TAGS, longest=LONGEST_TAG),
        expires_in_ms=fields.milliseconds("expires_in_seconds", longest_ms=LONGEST_DELAY_MS, zero=False),
        max_attempts=_max_attempts(fields),
        pointer=pointer,
    )
    fields.not_yet(*_NOT_YET)
    fields.end()
    return wish


def settle(
    wish: Wish,
    snapshot: Snapshot,
    checker: PayloadChecker | None,
    faults: Faults,
    *,
    owner: str,
    traceparent: str,
) -> Submission | None:
    """The submission that a wish comes to; None with a fault noted. Without a `checker` the payload is taken
    as it is. Raises Rejected for an unusable schema.
    """
    before = len(faults.found)
    try:
        task = known_task(snapshot, wish.name or "")
    except UnknownTask as error:
        faults.add(error.code, f"{wish.pointer}/name", error.message)
        return None
    queue = wish.queue or task.queue
    if wish.queue is not None:
        try:
            known_queue(snapshot, wish.queue)
        except UnknownQueue as error:
            faults.add(error.code, f"{wish.pointer}/queue", error.message)
    payload = _payload(wish, task, checker, faults)
    expires_in_ms = wish.expires_in_ms or task.terms.expires_in_ms or 0
    _check_expiry(wish, expires_in_ms, faults)
    if len(faults.found) > before:
        return None
    return Submission(
        name=task.name,
        queue=queue,
        payload=payload,
        delay_ms=wish.delay_ms or 0,
        due_at_ms=max(0, wish.due_at_ms or 0),
        expires_in_ms=expires_in_ms,
        priority=task.terms.priority if wish.priority is None else wish.priority,
        fairness_key=wish.fairness_key or owner,
        owner=owner,
        max_attempts=task.terms.max_attempts if wish.max_attempts is UNSET else wish.max_attempts,
        tags=tuple(dict.fromkeys((*task.terms.tags, *wish.tags))) if wish.tags else task.terms.tags,
        traceparent=traceparent,
    )


def traceparent_of(scope: Scope) -> str:
    """The request's trace context (W3C), or "" when it is none."""
    for name, value in scope["headers"]:
        if name == b"traceparent":
            text = value.decode("latin-1").strip()
            return text if _TRACEPARENT.fullmatch(text) else ""
    return ""


def _payload(wish: Wish, task: PublishedTask, checker: PayloadChecker | None, faults: Faults) -> bytes:
    """The payload as it is stored, held against its size and its schema."""
    payload = wish.payload or {}
    encoded = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    place = f"{wish.pointer}/payload"
    if len(encoded) > PAYLOAD_BYTES:
        told = f"The payload is {len(encoded):,} bytes of JSON; at most {PAYLOAD_BYTES:,} are taken."
        faults.add("payload-too-large", place, told)
    elif checker is not None:
        faults.extend("invalid-payload", checker.faults(task, payload, place))
    return encoded


def _max_attempts(fields: Fields) -> int | _Unset | None:
    value = fields.take("max_attempts", UNSET)
    if value is None or value is UNSET:
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_ATTEMPTS:
        fields.fault(
            "max_attempts",
            f"Expected a whole number, 1 to {MOST_ATTEMPTS:,}, or null for endless; got {kind(value)}.",
        )
        return UNSET
    return value


def _check_expiry(wish: Wish, expires_in_ms: int, faults: Faults) -> None:
    due_in_ms = wish.delay_ms or 0
    if wish.due_at_ms is not None:
        due_in_ms = wish.due_at_ms - clock.now_ms()
    if expires_in_ms and due_in_ms > 0 and expires_in_ms <= due_in_ms:
        faults.add(
            "invalid-body",
            f"{wish.pointer}/expires_in_seconds",
            f"The task would expire {expires_in_ms / 1000:g} s after its submit, before it is due.",
            "invalid",
        )
