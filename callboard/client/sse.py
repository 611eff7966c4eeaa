"""The lines of a server-sent event stream, decoded as they come (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

#: A line longer than this is no event of ours; the stream is given up rather than the memory.
LONGEST_LINE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """One dispatched event. `id` is the last one seen, `None` before any."""

    event: str
    data: str
    id: str | None


class Decoder:
    """Feed it bytes, get frames. `retry_ms` is the server's wish for reconnects, once it told one.

    `last_id` is the id of the last whole frame that had one, with data or without: where to go on from.
    A connection that breaks takes an unfinished event with it: make a new decoder for the next.
    """

    def __init__(self, last_id: str | None = None) -> None:
        self.retry_ms: int | None = None
        self.last_id = self._id = last_id
        self._text = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._rest = ""
        self._event = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that `chunk` completes. Raises ValueError for a line beyond LONGEST_LINE."""
        self._rest += self._text.decode(chunk)
        # A CR at the end may be half of a CRLF; it stays until its other half could have come.
        held = "\r" if self._rest.endswith("\r") else ""
        lines = self._rest.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._rest = lines.pop() + held
        if len(self._rest) > LONGEST_LINE:
            raise ValueError("An event stream sent a line without end.")
        return [frame for line in lines if (frame := self._line(line)) is not None]

    def _line(self, line: str) -> Frame | None:
        if not line:
            return self._dispatch()
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ") if colon else ""
        match name:
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry_ms = int(value)
            case _:
                pass  # a comment (an empty name), or a field of a later day
        return None

    def _dispatch(self) -> Frame | None:
        event, data = self._event, self._data
        self._event, self._data = "", []
        # Not at the id's own line: the event's data may never come.
        self.last_id = self._id
        return Frame(event or "message", "\n".join(data), self.last_id) if data else None
