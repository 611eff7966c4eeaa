"""Reading records. Everything of one task, or of one call, belongs to one queue, hence one slot."""

from __future__ import annotations

from collections.abc import Sequence

from callboard.records import ids
from callboard.records.record import TaskRecord, build, unreadable
from callboard.storage.keys import Keys, QueueKeys
from callboard.storage.operation import Command, Operation

#: Records fetched by one MGET.
CHUNK = 100


def fetch(keys: Keys, task_id: str) -> Operation[TaskRecord | None]:
    """One record, whole; None for an id that is not known. Raises TaskNotFound for what cannot be an id."""
    queue, local = ids.split(task_id)
    found = yield from fetch_many(keys.queue(queue), [local], history=True)
    return found[0]


def fetch_many(
    queue: QueueKeys, local_ids: Sequence[str], *, history: bool
) -> Operation[list[TaskRecord | None]]:
    """The records of one queue's `local_ids`, in order; without `history`, no attempts, error and result."""
    records: list[TaskRecord | None] = []
    for start in range(0, len(local_ids), CHUNK):
        chunk = local_ids[start : start + CHUNK]
        names = [name for local in chunk for name in _names(queue, local, history)]
        raws = yield Command("MGET", *names)
        width = 3 if history else 2
        for index, local in enumerate(chunk):
            parts = raws[index * width : (index + 1) * width]
            records.append(_record(queue, local, parts[0], parts[1], parts[2] if history else None))
    return records


def _names(queue: QueueKeys, local: str, history: bool) -> list[str]:
    names = [queue.mutable(local), queue.immutable(local)]
    if history:
        names.append(queue.history(local))
    return names


def _record(
    queue: QueueKeys, local: str, mutable: bytes | None, immutable: bytes | None, history: bytes | None
) -> TaskRecord | None:
    if mutable is None:
        return None
    task_id = f"{queue.name}_{local}"
    try:
        return build(task_id, queue.name, mutable, immutable, history)
    except (ValueError, TypeError, AttributeError) as error:  # UndecodableRecord is a ValueError
        return unreadable(task_id, queue.name, error)
