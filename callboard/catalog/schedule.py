"""Schedules: which task to submit, with what, and when. Data only; the scheduler computes the times."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Final, Literal
from zoneinfo import available_timezones

from callboard.catalog import cron as crontab
from callboard.catalog.queue import check_queue_name
from callboard.clock import parse_rfc3339, rfc3339
from callboard.errors import Invalid

MisfirePolicy = Literal["skip", "run_once", "run_all"]

MISFIRE_POLICIES: Final = ("skip", "run_once", "run_all")
#: Missed firings made up for by `run_all`, the newest.
MISFIRE_LIMIT: Final = 100
LONGEST_SECONDS: Final = 3653 * 24 * 3600

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A schedule: `Schedule(id="nightly", task="reports.build", cron="0 3 * * *", timezone="Europe/Berlin")`.

    id: letters, digits, `.`, `_`, `-`. task: a task's name. queue: empty for the task's own.
    Exactly one of:
        cron: an expression in `timezone` (`catalog.cron`). Times that a clock change skips fire when it is
            over; times that it repeats fire once, unless the hour is `*`.
        interval_seconds: 1 or more; counted from `start_at`, or from when the schedule was put.
        at: once.
    start_at, at: a datetime with a time zone, RFC 3339 text, or ms since 1970; kept as ms.
    jitter_seconds: each firing is late by up to so much, always the same for the same firing.
    misfire: what becomes of firings later than `grace_seconds`, because no scheduler ran or no task could be
        submitted: `skip`, `run_once` (the last one, for all), `run_all` (the last `misfire_limit`).
    priority, tags: for the tasks; None: the contract's. Tags are added to the contract's.

    Raises Invalid for a bad value.
    """

    id: str
    task: str
    name: str = ""
    queue: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)
    cron: str | None = None
    interval_seconds: float | None = None
    start_at: int | str | datetime | None = None
    at: int | str | datetime | None = None
    timezone: str = "UTC"
    jitter_seconds: float = 0
    misfire: MisfirePolicy = "run_once"
    grace_seconds: float = 60
    misfire_limit: int = MISFIRE_LIMIT
    paused: bool = False
    priority: int | None = None
    tags: Sequence[str] = ()
    owner: str = "default"

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            self._fault("id", "1 to 128 letters, digits, '.', '_', '-'", self.id)
        if not self.task:
            self._fault("task", "a task's name", self.task)
        if self.queue:
            check_queue_name(self.queue)
        object.__setattr__(self, "start_at", self._moment("start_at"))
        object.__setattr__(self, "at", self._moment("at"))
        object.__setattr__(self, "tags", tuple(self.tags))
        given = [name for name in ("cron", "interval_seconds", "at") if getattr(self, name) is not None]
        if len(given) != 1:
            self._fault("trigger", "exactly one of cron, interval_seconds, at", given)
        if self.start_at is not None and self.interval_seconds is None:
            self._fault("start_at", "none without interval_seconds", self.start_at)
        if self.cron is not None:
            crontab.parse(self.cron)
        if self.interval_seconds is not None and not _between(self.interval_seconds, 1, LONGEST_SECONDS):
            self._fault("interval_seconds", "1 second to ten years", self.interval_seconds)
        if _zones() and self.timezone not in _zones():
            self._fault("timezone", "a name such as Europe/Berlin or UTC", self.timezone)
        for name in ("jitter_seconds", "grace_seconds"):
            if not _between(getattr(self, name), 0, LONGEST_SECONDS):
                self._fault(name, "0 seconds to ten years", getattr(self, name))
        if self.misfire not in MISFIRE_POLICIES:
            self._fault("misfire", f"one of {', '.join(MISFIRE_POLICIES)}", self.misfire)
        if not _between(self.misfire_limit, 1, MISFIRE_LIMIT):
            self._fault("misfire_limit", f"1 to {MISFIRE_LIMIT}", self.misfire_limit)
        if self.priority is not None and not _between(self.priority, 0, 9):
            self._fault("priority", "0 (first) to 9", self.priority)
        try:
            json.dumps(self.payload, allow_nan=False)
        except (TypeError, ValueError) as error:
            self._fault("payload", "a JSON object", str(error))

    def _fault(self, name: str, expected: str, got: object) -> None:
        raise Invalid(f"Schedule {self.id!r}: {name}: expected {expected}; got {got!r}.")

    def _moment(self, name: str) -> int | None:
        value = getattr(self, name)
        if isinstance(value, str):
            try:
                return parse_rfc3339(value)
            except ValueError:
                self._fault(name, "a time such as 2026-11-22T09:30:00Z", value)
        if isinstance(value, datetime):
            if value.tzinfo is None:
                self._fault(name, "a datetime with its time zone", value)
            return int(value.timestamp() * 1000)
        return None if value is None else int(value)

    @property
    def at_ms(self) -> int | None:
        """`at` in ms since 1970."""
        return self.at if isinstance(self.at, int) else None

    @property
    def start_ms(self) -> int | None:
        """`start_at` in ms since 1970."""
        return self.start_at if isinstance(self.start_at, int) else None

    def trigger(self) -> dict[str, Any]:
        """The trigger on the wire."""
        if self.cron is not None:
            return {"cron": self.cron}
        if self.at_ms is not None:
            return {"at": rfc3339(self.at_ms)}
        start = {} if self.start_ms is None else {"start_at": rfc3339(self.start_ms)}
        return {"interval_seconds": self.interval_seconds, **start}

    def document(self) -> dict[str, Any]:
        """The definition on the wire and in the store."""
        return {
            "id": self.id,
            "name": self.name,
            "task": self.task,
            "queue": self.queue or None,
            "payload": dict(self.payload),
            "trigger": self.trigger(),
            "timezone": self.timezone,
            "jitter_seconds": self.jitter_seconds,
            "misfire": {
                "policy": self.misfire,
                "grace_seconds": self.grace_seconds,
                "limit": self.misfire_limit,
            },
            "paused": self.paused,
            "priority": self.priority,
            "tags": list(self.tags),
            "owner": self.owner,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Schedule:
        """The inverse of `document()`; further fields are ignored. Raises Invalid, KeyError, TypeError."""
        misfire = document["misfire"]
        return cls(
            id=document["id"],
            name=document["name"],
            task=document["task"],
            queue=document["queue"] or "",
            payload=document["payload"],
            **{key: document["trigger"].get(key) for key in ("cron", "interval_seconds", "start_at", "at")},
            timezone=document["timezone"],
            jitter_seconds=document["jitter_seconds"],
            misfire=misfire["policy"],
            grace_seconds=misfire["grace_seconds"],
            misfire_limit=misfire["limit"],
            paused=document["paused"],
            priority=document["priority"],
            tags=document["tags"],
            owner=document["owner"],
        )


def schedules_in(declared: Any) -> list[Schedule]:
    """The schedules that `declared` is or holds: a Schedule, an iterable of them, or a module with some.

    Raises Invalid for anything else.
    """
    if isinstance(declared, Schedule):
        return [declared]
    if isinstance(declared, Iterable):
        found = list(declared)
        if all(isinstance(one, Schedule) for one in found):
            return found
    elif hasattr(declared, "__dict__"):
        return [one for one in vars(declared).values() if isinstance(one, Schedule)]
    raise Invalid(f"Expected schedules; got {declared!r}.")


@cache
def _zones() -> frozenset[str]:
    # Empty where there is no time zone database: then the scheduler, which brings one, is the judge.
    return frozenset(available_timezones())


def _between(value: Any, least: float, most: float) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and least <= value <= most
