"""Tasks: one, its log, and pages of many."""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from callboard.errors import Invalid
from callboard.inspector.queues import queue_names
from callboard.records import ids, store
from callboard.records.record import TaskRecord
from callboard.records.state import State
from callboard.storage.keys import Keys, QueueKeys
from callboard.storage.operation import Command, Operation

#: Filters that no index serves look at this many of the newest tasks, and say so.
SCAN_LIMIT = 50_000
#: A state's set up to this size is read whole instead of searched for from the newest task on.
SMALL_SET = 2_000
_STEP = 500


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks. Empty fields do not filter; times in ms since 1970.

    `q` is looked for, case ignored, in id, name, payload and tags.
    """

    states: frozenset[State] = frozenset()
    queues: tuple[str, ...] = ()
    name: str = ""
    tag: str = ""
    owner: str = ""
    created_after: int | None = None
    created_before: int | None = None
    q: str = ""

    @property
    def scans(self) -> bool:
        """Whether records have to be read to decide: no index serves names, tags, owners and texts."""
        return bool(self.name or self.tag or self.owner or self.q)

    def matches(self, record: TaskRecord) -> bool:
        """Whether a record fits. Times and queues were seen to before it was read."""
        if self.states and record.state not in self.states:
            return False
        if self.name and record.name != self.name:
            return False
        if self.owner and record.owner != self.owner:
            return False
        if self.tag and self.tag not in record.tags:
            return False
        return not self.q or self._contains(record)

    def _contains(self, record: TaskRecord) -> bool:
        payload = json.dumps(record.payload, ensure_ascii=False)
        return self.q.lower() in "\n".join([record.id, record.name, payload, *record.tags]).lower()


@dataclass(frozen=True, slots=True)
class Page:
    """Tasks, newest first. `complete` is False when the scan stopped at SCAN_LIMIT; `scanned` counts records
    that were read for filters without an index, None when there were none."""

    items: tuple[TaskRecord, ...]
    next_cursor: str | None
    scanned: int | None = None
    complete: bool = True


@dataclass(slots=True)
class _Place:
    """How far one queue has been read: candidates in hand, and where to go on below them."""

    queue: QueueKeys
    top: str
    skip: int = 0
    ended: bool = False
    buffer: deque[tuple[int, str]] = field(default_factory=deque)


def get(keys: Keys, task_id: str) -> Operation[TaskRecord | None]:
    """One record, whole; None for an id that is not known. Raises TaskNotFound for what cannot be an id."""
    record = yield from store.fetch(keys, task_id)
    if record is None or record.created_at:
        return record
    queue, local = ids.split(task_id)
    created = yield Command("ZSCORE", keys.queue(queue).all, local)
    return record if created is None else _dated(record, int(float(created)))


def _dated(record: TaskRecord, created: int) -> TaskRecord:
    """A record that cannot be read does not say when it was made; the set of all tasks does."""
    return record if record.created_at else replace(record, created_at=created)


def find(
    keys: Keys,
    wanted: TaskFilter,
    *,
    limit: int = 50,
    cursor: str | None = None,
    history: bool = False,
) -> Operation[Page]:
    """A page of tasks, newest first, merged over queues. `history`: with attempts and results.

    Raises Invalid for a cursor that is not ours.
    """
    names = wanted.queues or (yield from queue_names(keys))
    after, scanned = _decode(cursor) if cursor else (None, 0)
    top = "+inf" if wanted.created_before is None else f"({wanted.created_before}"
    if after:
        top = str(after[0])
    places = {name: _Place(keys.queue(name), top) for name in sorted(set(names))}
    items: list[TaskRecord] = []
    looked = 0
    while True:
        for place in places.values():
            while not place.buffer and not place.ended and looked < SCAN_LIMIT:
                looked += yield from _fill(place, wanted, after)
        batch = _merge(places, min(_STEP, SCAN_LIMIT - scanned if wanted.scans else limit - len(items)))
        if not batch:
            break
        records = yield from _fetch(keys, batch, history)
        for (created, task_id), record in zip(batch, records, strict=True):
            after = (created, task_id)
            scanned += wanted.scans
            if record is not None and wanted.matches(record):
                items.append(record)
                if len(items) == limit:
                    shown = yield from _with_errors(keys, items, history)
                    return Page(shown, _encode(after, scanned), scanned if wanted.scans else None)
    cut = looked >= SCAN_LIMIT or (wanted.scans and scanned >= SCAN_LIMIT)
    shown = yield from _with_errors(keys, items, history)
    return Page(shown, None, scanned if wanted.scans else None, complete=not cut)


def _with_errors(keys: Keys, items: list[TaskRecord], history: bool) -> Operation[tuple[TaskRecord, ...]]:
    """A list tells why a task ended badly; that stands in its history, read only for those."""
    bad = [
        (record.created_at, record.id) for record in items if record.state in (State.FAILED, State.CANCELLED)
    ]
    if history or not bad:
        return tuple(items)
    found = yield from _fetch(keys, bad, history=True)
    whole = {record.id: record for record in found if record is not None}
    return tuple(whole.get(record.id, record) for record in items)


def _merge(places: Mapping[str, _Place], most: int) -> list[tuple[int, str]]:
    """Up to `most` newest candidates (created, task id), as long as every queue's newest is known."""
    batch: list[tuple[int, str]] = []
    while len(batch) < most:
        if any(not place.buffer and not place.ended for place in places.values()):
            break
        heads = [(*place.buffer[0], name) for name, place in places.items() if place.buffer]
        if not heads:
            break
        created, local, name = max(heads, key=lambda head: (head[0], f"{head[2]}_{head[1]}"))
        places[name].buffer.popleft()
        batch.append((created, f"{name}_{local}"))
    return batch


def _fill(place: _Place, wanted: TaskFilter, after: tuple[int, str] | None) -> Operation[int]:
    """Bring candidates of one queue in; how many ids were looked at."""
    bottom = "-inf" if wanted.created_after is None else str(wanted.created_after)
    if wanted.states and (small := (yield from _small_states(place, wanted, after))) is not None:
        return small
    rows = yield Command(
        "ZREVRANGEBYSCORE", place.queue.all, place.top, bottom, "WITHSCORES", "LIMIT", place.skip, _STEP
    )
    found = [(int(float(score)), local.decode()) for local, score in _pairs(rows)]
    if len(found) < _STEP:
        place.ended = True
    if found:
        last = found[-1][0]
        ties = sum(1 for created, _ in found if created == last)
        place.skip = ties + (place.skip if place.top == str(last) and ties == len(found) else 0)
        place.top = str(last)
    if wanted.states and found:
        found = yield from _in_states(place.queue, found, wanted.states)
    place.buffer.extend(c for c in found if _below(place.queue.name, c, after))
    return len(rows) // 2 if rows and not isinstance(rows[0], list | tuple) else len(rows)


def _small_states(place: _Place, wanted: TaskFilter, after: tuple[int, str] | None) -> Operation[int | None]:
    """Read the wanted states' sets whole when they are small; None when they are not."""
    sizes = 0
    for state in wanted.states:
        sizes += int((yield Command("ZCARD", place.queue.state(state))))
    if sizes > SMALL_SET or place.skip:
        return None
    found: list[tuple[int, str]] = []
    for state in wanted.states:
        members = yield Command("ZRANGE", place.queue.state(state), 0, -1)
        if members:
            scores = yield Command("ZMSCORE", place.queue.all, *members)
            found += [
                (int(float(score)), local.decode())
                for local, score in zip(members, scores, strict=True)
                if score is not None
            ]
    low = wanted.created_after if wanted.created_after is not None else -1
    high = wanted.created_before if wanted.created_before is not None else float("inf")
    kept = {c for c in found if low <= c[0] < high and _below(place.queue.name, c, after)}
    place.buffer.extend(sorted(kept, key=lambda c: (c[0], c[1]), reverse=True))
    place.ended = True
    return len(found)


def _in_states(
    queue: QueueKeys, found: list[tuple[int, str]], states: frozenset[State]
) -> Operation[list[tuple[int, str]]]:
    inside: set[str] = set()
    for state in states:
        scores = yield Command("ZMSCORE", queue.state(state), *(local for _, local in found))
        inside |= {local for (_, local), score in zip(found, scores, strict=True) if score is not None}
    return [candidate for candidate in found if candidate[1] in inside]


def _below(queue: str, candidate: tuple[int, str], after: tuple[int, str] | None) -> bool:
    return after is None or (candidate[0], f"{queue}_{candidate[1]}") < after


def _fetch(keys: Keys, batch: list[tuple[int, str]], history: bool) -> Operation[list[TaskRecord | None]]:
    by_queue: dict[str, list[int]] = {}
    for index, (_, task_id) in enumerate(batch):
        by_queue.setdefault(task_id.rpartition("_")[0], []).append(index)
    records: list[TaskRecord | None] = [None] * len(batch)
    for name, indexes in by_queue.items():
        locals_ = [batch[index][1].rpartition("_")[2] for index in indexes]
        found = yield from store.fetch_many(keys.queue(name), locals_, history=history)
        for index, record in zip(indexes, found, strict=True):
            records[index] = record and _dated(record, batch[index][0])
    return records


def _pairs(rows: Any) -> list[tuple[bytes, Any]]:
    """Members and scores, whether the client has paired them (RESP3) or not."""
    if rows and isinstance(rows[0], list | tuple):
        return [(row[0], row[1]) for row in rows]
    return list(zip(rows[::2], rows[1::2], strict=True))


def _encode(after: tuple[int, str], scanned: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([*after, scanned]).encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[tuple[int, str] | None, int]:
    try:
        created, task_id, scanned = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not (isinstance(created, int) and isinstance(task_id, str) and isinstance(scanned, int)):
            raise ValueError
    except (ValueError, TypeError) as error:
        raise Invalid("The cursor is not one that a list gave; start without one.") from error
    return (created, task_id), scanned
