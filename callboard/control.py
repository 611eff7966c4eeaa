"""The operator door: cancel, retry, resubmit, delete; pause, resume, purge a queue; reweigh a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from callboard.broker.purge import PURGEABLE, purge
from callboard.broker.reweigh import reweigh
from callboard.broker.submission import NEW_WORK, Submission, SubmitLimits, Submitted, new_nonce, submit
from callboard.errors import IllegalTransition, Invalid, TaskNotFound
from callboard.records import ids, layout, store
from callboard.records.record import TaskRecord
from callboard.storage.keys import Keys
from callboard.storage.operation import Command, Operation, ScriptCall
from callboard.storage.scripts import script

_CANCEL = script("callboard.broker", "cancel")
_RETRY = script("callboard.broker", "retry")
_DELETE = script("callboard.broker", "delete")
_PAUSE = script("callboard.broker", "pause")


@dataclass(frozen=True, slots=True)
class Cancellation:
    """`done`: the task is cancelled. Otherwise it runs and has been asked to stop."""

    record: TaskRecord
    done: bool


def cancel(keys: Keys, task_id: str, *, terminate: bool = False) -> Operation[Cancellation]:
    """Cancel a waiting task at once, ask a running one to stop (`terminate`: kill its body).

    Idempotent. Raises TaskNotFound, and IllegalTransition when it completed or failed.
    """
    queue, local = ids.split(task_id)
    flags = "1" if terminate else "0"
    word, state = yield ScriptCall(_CANCEL, keys.queue(queue).prefix, (local, flags))
    if word == b"missing":
        raise TaskNotFound(task_id)
    if word == b"conflict":
        raise IllegalTransition(
            f"Task {task_id!r} is {state.decode()}; only a task that has not ended can be cancelled.",
            state=state.decode(),
        )
    record = yield from _record(keys, task_id)
    return Cancellation(record, word == b"done")


def retry(
    keys: Keys, task_id: str, *, attempts: int | None = 1, nonce: str | None = None
) -> Operation[TaskRecord]:
    """Queue a failed or cancelled task again under its own id, with `attempts` more (None: endless).

    `nonce` marks the request: the same one again is a no-op. Raises TaskNotFound, IllegalTransition.
    """
    queue, local = ids.split(task_id)
    granted = -1 if attempts is None else attempts
    args = (local, nonce or new_nonce(), granted)
    word, state = yield ScriptCall(_RETRY, keys.queue(queue).prefix, args)
    if word == b"missing":
        raise TaskNotFound(task_id)
    if word == b"conflict":
        raise IllegalTransition(
            f"Task {task_id!r} is {state.decode()}; only a failed or cancelled task can be retried.",
            state=state.decode(),
        )
    return (yield from _record(keys, task_id))


def resubmit(
    keys: Keys,
    task_id: str,
    *,
    payload: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    max_attempts: int | None = None,
    limits: SubmitLimits = NEW_WORK,
) -> Operation[Submitted]:
    """A new task with the old one's name, queue, payload, priority, owner and tags.

    `payload` replaces the old one, `overrides` other fields of Submission; `max_attempts` is the contract's.
    Raises TaskNotFound.
    """
    queue, local = ids.split(task_id)
    queue_keys = keys.queue(queue)
    raws = yield Command("MGET", queue_keys.mutable(local), queue_keys.immutable(local))
    if raws[0] is None or raws[1] is None:
        raise TaskNotFound(task_id)
    try:
        old, body = layout.Mutable.unpack(raws[0]), layout.Immutable.unpack(raws[1])
    except layout.UndecodableRecord as error:
        raise Invalid(f"The record of task {task_id!r} cannot be decoded: {error}") from error
    fields: dict[str, Any] = {
        "name": old.name.decode(),
        "queue": queue,
        "priority": old.priority,
        "owner": old.owner.decode(),
        "fairness_key": old.fairness_key.decode(),
        "weight": old.weight,
        "tags": tuple(body.tags),
        "max_attempts": max_attempts,
        "resubmitted_from": task_id,
        "traceparent": body.traceparent,
    }
    if payload is not None or not body.message:
        fields["payload"] = payload if payload is not None else body.payload
    else:
        fields["message"] = body.message
    fields.update(overrides or {})
    return (yield from submit(keys, [Submission(**fields)], limits))[0]


def delete(keys: Keys, task_id: str) -> Operation[None]:
    """Delete a terminal task's record, log and result. Raises TaskNotFound, IllegalTransition."""
    queue, local = ids.split(task_id)
    word, state = yield ScriptCall(_DELETE, keys.queue(queue).prefix, (local,))
    if word == b"missing":
        raise TaskNotFound(task_id)
    if word == b"conflict":
        raise IllegalTransition(
            f"Task {task_id!r} is {state.decode()}; only a task that has ended can be deleted.",
            state=state.decode(),
        )


def pause(keys: Keys, queue: str) -> Operation[bool]:
    """Stop claims from `queue`; running tasks end, submits are accepted. True if that changed anything."""
    return bool((yield ScriptCall(_PAUSE, keys.queue(ids.check_queue(queue)).prefix, ("1",))))


def resume(keys: Keys, queue: str) -> Operation[bool]:
    """Undo `pause`. True if that changed anything."""
    return bool((yield ScriptCall(_PAUSE, keys.queue(ids.check_queue(queue)).prefix, ("0",))))


def _record(keys: Keys, task_id: str) -> Operation[TaskRecord]:
    record = yield from store.fetch(keys, task_id)
    if record is None:
        raise TaskNotFound(task_id)
    return record


__all__ = [
    "PURGEABLE",
    "Cancellation",
    "cancel",
    "delete",
    "pause",
    "purge",
    "resubmit",
    "resume",
    "retry",
    "reweigh",
]
