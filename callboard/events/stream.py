"""The event stream of a queue: what eyes see. Nothing that must happen depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from callboard.clock import rfc3339
from callboard.events import progress
from callboard.storage.keys import QueueKeys
from callboard.storage.operation import Command, Operation

#: The one-letter kinds that the scripts write.
TYPES: Mapping[str, str] = {
    "s": "task.submitted",
    "q": "task.queued",
    "t": "task.started",
    "p": "task.progressed",
    "l": "task.logged",
    "y": "task.retrying",
    "r": "task.released",
    "u": "task.rescued",
    "c": "task.completed",
    "f": "task.failed",
    "x": "task.cancelled",
    "Q": "queue.changed",
    "J": "worker.joined",
    "L": "worker.left",
}
TERMINAL_TYPES = frozenset({"task.completed", "task.failed", "task.cancelled"})

_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class Event:
    """One transition. `position`: its id in the queue's stream, "ms-n"; `id` is "" for an event of a queue.

    `extra`: progress as JSON for `task.progressed`, the number of lines for `task.logged`.
    """

    position: str
    type: str
    id: str
    name: str
    queue: str
    owner: str
    attempt: int
    state: str
    reason: str | None
    extra: str = ""

    @property
    def at(self) -> int:
        """When, in ms since 1970, by Redis's clock."""
        return int(self.position.partition("-")[0])

    def to_json(self) -> dict[str, Any]:
        """The event's data on the wire."""
        data: dict[str, Any] = {
            "type": self.type,
            "at": rfc3339(self.at),
            "id": self.id or None,
            "name": self.name or None,
            "queue": self.queue,
            "state": self.state or None,
            "attempt": self.attempt,
            "owner": self.owner or None,
        }
        if self.reason:
            data["reason"] = self.reason
        if self.type == "task.progressed" and (told := progress.shown(self.extra)):
            data["progress"] = told
        return data


def decode(queue: str, entry: tuple[bytes, list[bytes] | Mapping[bytes, bytes]]) -> Event | None:
    """The event of one stream entry as Redis gives it; None for an entry of a later version."""
    position, fields = entry
    pairs = fields if isinstance(fields, Mapping) else dict(zip(fields[::2], fields[1::2], strict=True))
    words = pairs.get(b"e", b"").decode("utf-8", "replace").split(_SEPARATOR, 7)
    if len(words) < 8 or words[0] not in TYPES or not (words[4] or "0").isdecimal():
        return None
    kind, local, name, owner, attempt, state, reason, extra = words
    return Event(
        position=position.decode(),
        type=TYPES[kind],
        id=f"{queue}_{local}" if local else "",
        name=name,
        queue=queue,
        owner=owner,
        attempt=int(attempt or 0),
        state=state,
        reason=reason or None,
        extra=extra,
    )


@dataclass(frozen=True, slots=True)
class Window:
    """The kept part of a stream: first and last position ("0-0" when empty)."""

    first: str
    last: str


def window(queue: QueueKeys) -> Operation[Window]:
    """What of the stream is kept now."""
    first = yield Command("XRANGE", queue.events, "-", "+", "COUNT", 1)
    last = yield Command("XREVRANGE", queue.events, "+", "-", "COUNT", 1)
    return Window(
        first[0][0].decode() if first else "0-0",
        last[0][0].decode() if last else "0-0",
    )


def read(queue: QueueKeys, after: str, count: int = 500) -> Operation[list[Event]]:
    """Up to `count` events after the position `after` ("0-0": from the first kept), oldest first."""
    entries = yield Command("XRANGE", queue.events, f"({after}", "+", "COUNT", count)
    return [event for entry in entries if (event := decode(queue.name, entry))]
