"""Windows: what of a queue's stream is kept, and whether a position lies in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from callboard.errors import CallboardError
from callboard.storage.keys import QueueKeys
from callboard.storage.operation import Command, Operation
from callboard_api.streams.cursor import START, Position, position


@dataclass(frozen=True, slots=True)
class Kept:
    """A stream's kept part. `first`: the oldest entry, None when there is none; `last`: the newest that ever
    was; `trimmed`: older ones are gone.
    """

    first: Position | None
    last: Position
    trimmed: bool

    def misses(self, place: Position) -> bool:
        """Whether a reader who has seen everything up to `place` cannot go on without a gap: entries after it
        are gone, or it is ahead of the stream, which a failover has shortened.
        """
        if place > self.last:
            return True
        return self.trimmed and place < (self.first or self.last)


def kept(queue: QueueKeys) -> Operation[Kept]:
    """The stream's window now; an empty one for a queue without a stream."""
    if not (yield Command("EXISTS", queue.events)):
        return Kept(None, START, trimmed=False)
    try:
        reply = yield Command("XINFO", "STREAM", queue.events)
    except CallboardError as error:
        if "no such key" in str(error):  # gone since
            return Kept(None, START, trimmed=False)
        raise
    info: dict[str, Any] = {_word(name): value for name, value in _pairs(reply)}
    first = info.get("first-entry")
    return Kept(
        first=position(_word(first[0])) if first else None,
        last=position(_word(info["last-generated-id"])),
        # Entries that were added and are no more.
        trimmed=int(info.get("entries-added", 0)) > int(info["length"]),
    )


def _pairs(reply: Any) -> list[tuple[Any, Any]]:
    if isinstance(reply, dict):
        return list(reply.items())
    return list(zip(reply[::2], reply[1::2], strict=True))


def _word(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
