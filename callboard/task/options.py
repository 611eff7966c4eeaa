"""One submit of a task: what its contract says, and how this one differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack, cast

from pydantic import BaseModel

from callboard import clock
from callboard.catalog.contract import Contract
from callboard.catalog.queue import check_queue_name
from callboard.catalog.terms import Terms
from callboard.context import current_or_none, delay_ms
from callboard.errors import Invalid, nearest
from callboard.submit import Submission


class SubmitOptions(TypedDict, total=False):
    """How one submit differs from its contract. Durations in seconds or timedeltas.

    delay or run_at (an aware datetime): not before then, at most ten years ahead.
    queue, priority (0 first, 9 last), expires_in, tags (added): instead of the contract's.
    max_attempts: instead of the contract's retries + 1; None for endless.
    fairness_key: whose turn this is; by default the owner.
    task_id: an id made in advance, so that submitting again is harmless.
    """

    delay: float | timedelta
    run_at: datetime
    queue: str
    priority: int
    expires_in: float | timedelta
    tags: Sequence[str]
    max_attempts: int | None
    fairness_key: str
    owner: str
    task_id: str
    traceparent: str


def submission(
    contract: Contract, payload: Mapping[str, Any] | BaseModel, **options: Unpack[SubmitOptions]
) -> Submission:
    """The submission of a task by its contract alone, for programs that do not import its code.

    Run it with `connection.run(submit(connection.keys, [it]))`. Inside a body the new task's
    `parent_id` is the running one. Raises InvalidPayload, and Invalid for a bad option.
    """
    if contract.adapter is None:
        raise Invalid(f"Task {contract.name!r} has no payload model, so only its function can be submitted.")
    found = submission_by(contract.terms(), contract.adapter.encode(payload))
    return replace(found, **_changes(found, options)) if options else found


def submission_by(terms: Terms, payload: bytes | None) -> Submission:
    """What `terms` say of a submit without options."""
    parent = current_or_none()
    return Submission(
        name=terms.name,
        queue=terms.queue,
        payload=payload,
        priority=terms.priority,
        expires_in_ms=terms.expires_in_ms or 0,
        max_attempts=terms.max_attempts,
        tags=terms.tags,
        owner=parent.owner if parent else "default",
        parent_id=parent.id if parent else "",
    )


def _changes(base: Submission, options: SubmitOptions) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name, value in options.items():
        match name:
            case "delay":
                changes["delay_ms"] = _milliseconds("delay", value)
            case "run_at":
                changes["due_at_ms"] = _instant(value)
            case "expires_in":
                changes["expires_in_ms"] = _milliseconds("expires_in", value)
            case "tags":
                changes["tags"] = (
                    *base.tags,
                    *(tag for tag in cast("Sequence[str]", value) if tag not in base.tags),
                )
            case "queue":
                changes["queue"] = check_queue_name(value)
            case "priority":
                if not isinstance(value, int) or not 0 <= value <= 9:
                    raise Invalid(f"priority: expected 0 (first) to 9; got {value!r}.")
                changes["priority"] = value
            case "max_attempts":
                if value is not None and (not isinstance(value, int) or value < 1):
                    raise Invalid(f"max_attempts: expected 1 or more, or None for endless; got {value!r}.")
                changes["max_attempts"] = value
            case "fairness_key" | "owner" | "task_id" | "traceparent":
                changes[name] = value
            case _:
                hint = nearest(name, SubmitOptions.__annotations__)
                raise Invalid(f"{name!r} is no option of a submit.{hint}")
    if "delay_ms" in changes and "due_at_ms" in changes:
        raise Invalid("Give delay or run_at, not both.")
    expires = changes.get("expires_in_ms", base.expires_in_ms)
    due_in = changes["due_at_ms"] - clock.now_ms() if "due_at_ms" in changes else changes.get("delay_ms", 0)
    if expires and due_in >= expires:
        raise Invalid("The task would expire before it is due: expires_in counts from the submit.")
    return changes


def _milliseconds(name: str, value: Any) -> int:
    try:
        return delay_ms(value)
    except (TypeError, ValueError) as error:
        raise Invalid(f"{name}: {error}") from error


def _instant(value: Any) -> int:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise Invalid(f"run_at: expected a datetime with its time zone; got {value!r}.")
    return int(value.timestamp() * 1000)
