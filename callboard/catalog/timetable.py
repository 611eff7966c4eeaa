"""The timetable in Redis: schedules, and how far their firings have come. Hash `NS:timetable`.

Whoever changes an entry compares it with what it has read, so that two schedulers and an editor never undo
each other's work. A definition has a revision, which an editor names; the pointer to the next firing moves
without changing it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from callboard.catalog.schedule import Schedule
from callboard.clock import rfc3339
from callboard.errors import Conflict, Invalid, Missing
from callboard.storage.keys import Keys
from callboard.storage.operation import Command, Operation, ScriptCall
from callboard.storage.scripts import script

_SWAP = script("callboard.catalog", "swap")
_TICK = script("callboard.catalog", "tick")
_CHANGES: Final = b"#"
#: Between a read and its write, schedulers move the pointer at most so often.
_TRIES = 20


class ScheduleNotFound(Missing):
    """No schedule has this id."""

    def __init__(self, schedule_id: str) -> None:
        super().__init__(f"No schedule has the id {schedule_id!r}.")
        self.schedule_id = schedule_id


@dataclass(frozen=True, slots=True)
class Entry:
    """A schedule with its state. Times in ms since 1970, None for none.

    revision: counts changes of the definition. planned: the revision that `nominal_ms` and `fire_ms` belong
    to; another one means that the scheduler has yet to plan.
    nominal_ms: the next firing by the trigger; fire_ms: the same with jitter; None: there is none.
    moved_by: the scheduler that moved the pointer last, so that no two writes are alike.
    origin: who declared it in code ("" for one made by hand), digest: of what was declared there.
    edited: changed by hand since, so the code's declaration no longer counts.
    """

    schedule: Schedule
    revision: int = 1
    created_ms: int = 0
    updated_ms: int = 0
    planned: int = 0
    nominal_ms: int | None = None
    fire_ms: int | None = None
    last_nominal_ms: int | None = None
    last_fired_ms: int | None = None
    last_task_id: str | None = None
    moved_by: str = ""
    origin: str = ""
    digest: str = ""
    edited: bool = False
    raw: bytes = field(default=b"", compare=False, repr=False)

    @property
    def id(self) -> str:
        return self.schedule.id

    @property
    def is_planned(self) -> bool:
        """Whether the pointer belongs to this definition."""
        return self.planned == self.revision

    def to_json(self) -> dict[str, Any]:
        """The schedule on the wire."""
        next_ms = self.fire_ms if self.is_planned and not self.schedule.paused else None
        return {
            **self.schedule.document(),
            "revision": self.revision,
            "created_at": rfc3339(self.created_ms),
            "updated_at": rfc3339(self.updated_ms),
            "next_fire_at": None if next_ms is None else rfc3339(next_ms),
            "last_fired_at": None if self.last_fired_ms is None else rfc3339(self.last_fired_ms),
            "last_task_id": self.last_task_id,
            "origin": self.origin or None,
        }

    def pack(self) -> bytes:
        """The stored form."""
        state = {name: getattr(self, name) for name in _STATE}
        return json.dumps(
            {"schedule": self.schedule.document(), **state}, separators=(",", ":"), ensure_ascii=False
        ).encode()

    @classmethod
    def unpack(cls, raw: bytes) -> Entry:
        """Raises ValueError, KeyError, TypeError or Invalid for what this release cannot read."""
        fields = json.loads(raw)
        state = {name: fields[name] for name in _STATE if name in fields}
        return cls(Schedule.from_document(fields["schedule"]), **state, raw=raw)


_STATE: Final = (
    "revision", "created_ms", "updated_ms", "planned", "nominal_ms", "fire_ms", "last_nominal_ms",
    "last_fired_ms", "last_task_id", "moved_by", "origin", "digest", "edited",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Timetable:
    """All entries by id. `unreadable`: ids of entries that this release cannot read."""

    entries: Mapping[str, Entry]
    unreadable: tuple[str, ...] = ()


def tick(keys: Keys) -> Operation[tuple[int, int]]:
    """(Redis's time in ms, a number that grows with each change of a definition)."""
    now_ms, changes = yield ScriptCall(_TICK, keys.timetable, ())
    return now_ms, changes


def read(keys: Keys) -> Operation[Timetable]:
    """Every schedule."""
    raw: Mapping[bytes, bytes] = yield Command("HGETALL", keys.timetable)
    entries: dict[str, Entry] = {}
    unreadable: list[str] = []
    for key, value in sorted(raw.items()):
        if key == _CHANGES:
            continue
        try:
            entries[key.decode()] = Entry.unpack(value)
        except (ValueError, KeyError, TypeError, Invalid):
            unreadable.append(key.decode())
    return Timetable(entries, tuple(unreadable))


def get(keys: Keys, schedule_id: str) -> Operation[Entry]:
    """One schedule. Raises ScheduleNotFound, and as `Entry.unpack` does."""
    if schedule_id == _CHANGES.decode():
        raise ScheduleNotFound(schedule_id)
    raw: bytes | None = yield Command("HGET", keys.timetable, schedule_id)
    if raw is None:
        raise ScheduleNotFound(schedule_id)
    return Entry.unpack(raw)


def create(keys: Keys, schedule: Schedule, *, origin: str = "") -> Operation[Entry]:
    """Put a schedule that is not there yet. Raises Conflict when its id is taken."""
    now_ms, _ = yield from tick(keys)
    mark = digest(schedule) if origin else ""
    entry = _stored(Entry(schedule, created_ms=now_ms, updated_ms=now_ms, origin=origin, digest=mark))
    if not (yield from _swap(keys, schedule.id, b"", entry.raw, changes=True)):
        raise Conflict(f"A schedule with the id {schedule.id!r} exists already.")
    return entry


def change(keys: Keys, schedule: Schedule, revision: int) -> Operation[Entry]:
    """Put a definition by hand in the place of its `revision`. What is missed so far is not made up for.

    Raises ScheduleNotFound, and Conflict when the revision is another by now.
    """
    now_ms, _ = yield from tick(keys)
    for _ in range(_TRIES):
        before = yield from get(keys, schedule.id)
        if before.schedule == schedule and before.revision == revision + 1:
            return before  # this same change, sent again
        if before.revision != revision:
            raise Conflict(
                f"Schedule {schedule.id!r} has revision {before.revision} by now, not {revision}: "
                "somebody else changed it."
            )
        after = replace(before, schedule=schedule, revision=revision + 1, updated_ms=now_ms, edited=True)
        after = _stored(after)
        if (yield from _swap(keys, schedule.id, before.raw, after.raw, changes=True)):
            return after
    raise Conflict(f"Schedule {schedule.id!r} fires too fast to be changed now.")


def delete(keys: Keys, schedule_id: str) -> Operation[bool]:
    """Take a schedule out; whether it was there. Tasks that it has submitted go on."""
    for _ in range(_TRIES):
        raw: bytes | None = yield Command("HGET", keys.timetable, schedule_id)
        if raw is None or schedule_id == _CHANGES.decode():
            return False
        if (yield from _swap(keys, schedule_id, raw, b"", changes=True)):
            return True
    raise Conflict(f"Schedule {schedule_id!r} fires too fast to be deleted now.")


def advance(keys: Keys, before: Entry, after: Entry) -> Operation[Entry | None]:
    """Move the pointer of `before`, as it was read, to `after`'s; None when somebody else has changed it."""
    after = _stored(after)
    done = yield from _swap(keys, before.id, before.raw, after.raw, changes=False)
    return after if done else None


def put_declared(keys: Keys, schedules: Iterable[Schedule], origin: str) -> Operation[list[str]]:
    """Put what `origin` (an application, a module) declares in code; the ids that were put.

    A schedule that is there stays as it is, unless this origin declared it otherwise before and nobody has
    edited it by hand since.
    """
    written: list[str] = []
    for schedule in schedules:
        raw: bytes | None = yield Command("HGET", keys.timetable, schedule.id)
        now_ms, _ = yield from tick(keys)
        mark = digest(schedule)
        after = Entry(schedule, created_ms=now_ms, updated_ms=now_ms, origin=origin, digest=mark)
        if raw is not None:
            try:
                before = Entry.unpack(raw)
            except (ValueError, KeyError, TypeError, Invalid):
                continue  # a newer release's
            if before.edited or before.origin != origin or before.digest == mark:
                continue
            after = replace(
                before, schedule=schedule, revision=before.revision + 1, updated_ms=now_ms, digest=mark
            )
        # When somebody else is faster, then with the same declaration or by hand: both win.
        if (yield from _swap(keys, schedule.id, raw or b"", after.pack(), changes=True)):
            written.append(schedule.id)
    return written


def digest(schedule: Schedule) -> str:
    """16 characters that tell two definitions apart."""
    canonical = json.dumps(schedule.document(), sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(canonical).hexdigest()[:16]


def _stored(entry: Entry) -> Entry:
    return replace(entry, raw=entry.pack())


def _swap(keys: Keys, schedule_id: str, before: bytes, after: bytes, *, changes: bool) -> Operation[bool]:
    done = yield ScriptCall(_SWAP, keys.timetable, (schedule_id, before, after, int(changes)))
    return bool(done)
