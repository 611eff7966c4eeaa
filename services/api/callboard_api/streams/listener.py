"""Listeners: what one client wants to hear, and the events that wait for it."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

from callboard.events.stream import Event
from callboard_api.streams.cursor import START, Position, position

#: A reader that lets so many events wait is dropped; it resumes with its cursor.
MOST_WAITING: Final = 1000

Ending = Literal["stopped", "slow", "gap"]


class Signal:
    """An event, encoded once for all who hear it."""

    __slots__ = ("_data", "event", "place")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.place: Position = position(event.position)
        self._data: bytes | None = None

    @property
    def data(self) -> bytes:
        """The lines `event:` and `data:`."""
        if self._data is None:
            self._data = frame(self.event.type, self.event.to_json())
        return self._data


@dataclass(frozen=True, slots=True)
class Interest:
    """Which events. Empty fields do not filter. `owner` None: everybody's; `task_id`: of a task's stream, the
    only one that hears `task.logged`.
    """

    queues: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    tag: str = ""
    owner: str | None = None
    task_id: str = ""

    def covers(self, queue: str) -> bool:
        """Whether events of this queue matter."""
        return not self.queues or queue in self.queues

    def matches(self, event: Event) -> bool:
        """Whether to hear this event; the tag is seen to elsewhere, for events do not carry tags."""
        if self.task_id:
            return event.id == self.task_id
        if event.type == "task.logged" or (self.queues and event.queue not in self.queues):
            return False
        if self.owner is not None and event.owner != self.owner:
            return False
        if self.names and event.name not in self.names:
            return False
        return not self.types or event.type in self.types


class Listener:
    """Takes events from the hub as they come and gives them to one response in batches.

    `places`: how far the client has heard, by queue; the response moves it on.
    """

    def __init__(self, interest: Interest, most_waiting: int = MOST_WAITING) -> None:
        self.interest = interest
        self.places: dict[str, Position] = {}
        self.ended: Ending | None = None
        self.too_slow = asyncio.Event()
        #: While older events are read from the streams, those that overflow can be read from there as well.
        self.replaying = True
        self.overflowed = False
        self._most = most_waiting
        self._waiting: deque[Signal] = deque()
        self._wake = asyncio.Event()

    def offer(self, signal: Signal) -> None:
        """Called by the hub for each event; never blocks."""
        if self.ended is not None or not self.interest.matches(signal.event):
            return
        if len(self._waiting) >= self._most:
            if self.replaying:
                self.overflowed = True
                self._waiting.clear()
            else:
                self.end("slow")
                self.too_slow.set()
            return
        self._waiting.append(signal)
        self._wake.set()

    def end(self, why: Ending) -> None:
        """Nothing more comes."""
        if self.ended is None:
            self.ended = why
            self._wake.set()

    def heard(self, signal: Signal) -> bool:
        """Whether the client has this event already; if not, it has it from now on."""
        queue = signal.event.queue
        if signal.place <= self.places.get(queue, START):
            return True
        self.places[queue] = signal.place
        return False

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    async def take(self, seconds: float) -> list[Signal]:
        """What waits, at least one unless `seconds` pass or the listener ends."""
        if not self._waiting and self.ended is None:
            self._wake.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                return []
        batch = list(self._waiting)
        self._waiting.clear()
        return batch


def frame(kind: str, data: object) -> bytes:
    """`event:` and `data:` of one event; JSON has no line breaks inside."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {kind}\ndata: {text}\n".encode("utf-8", "replace")
