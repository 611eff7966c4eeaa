"""A stream of events over any number of connections, without any I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping

from callboard import clock
from callboard.client.exchange import Answer, Call, Fault, Reply, refusal
from callboard.client.faults import ApiUnreachable
from callboard.client.resources import Event
from callboard.client.sse import Decoder

#: Three of the API's pings: a connection silent for so long is dead.
SILENCE_SECONDS = 45.0
#: A stream that was open once looks for the API for so long before it gives up.
PATIENCE_SECONDS = 60.0
_RETRY_MS = 2000
_LONGEST_PAUSE_SECONDS = 10.0


class Subscription:
    """What a reader of a stream sends, takes in and remembers between connections.

    A driver connects with `call`, tells of the answer (`opened`), feeds the bytes, and asks `lost` how long
    to wait when the connection has ended; until `over`.

    after: the cursor to go on from; None for what comes from now on.
    idle_seconds: the stream is over when nothing came for so long; None: it goes on.
    ends_with_task: it is over after the event that ends its task.
    """

    def __init__(
        self,
        path: str,
        params: tuple[tuple[str, str], ...] = (),
        *,
        after: str | None = None,
        idle_seconds: float | None = None,
        ends_with_task: bool = False,
    ) -> None:
        self.over = False
        self.cursor = after
        self._path = path
        self._params = params
        self._idle_seconds = idle_seconds
        self._ends_with_task = ends_with_task
        self._decoder = Decoder(after)
        self._retry_ms = _RETRY_MS
        self._was_open = False
        self._failures = 0
        self._given_up: float | None = None

    def call(self) -> Call:
        """The request of the next connection."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self.cursor:
            headers["Last-Event-ID"] = self.cursor
        return Call(
            "GET",
            self._path,
            self._params,
            headers=headers,
            repeatable=True,
            read_seconds=SILENCE_SECONDS if self._idle_seconds is None else self._idle_seconds,
        )

    def opened(self, answer: Answer) -> bool:
        """Take the head of an answer (with its whole body unless it is a 200): true when bytes will follow.

        Raises RequestRefused for what a new connection would not cure, and ApiUnreachable for a first
        connection that fails.
        """
        if isinstance(answer, Reply) and answer.status == 204:
            self.over = True
            return False
        if isinstance(answer, Reply) and answer.status == 200:
            kind = answer.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise ApiUnreachable(f"What answers there sends {kind or 'nothing'} instead of events.")
            self._decoder = Decoder(self.cursor)
            self._was_open = True
            self._failures, self._given_up = 0, None
            return True
        passing = isinstance(answer, Fault) or answer.status in (429, 502, 503, 504)
        if not self._was_open or not passing:
            raise refusal(answer) if isinstance(answer, Reply) else ApiUnreachable(answer.message)
        return False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes."""
        events = []
        try:
            frames = self._decoder.feed(chunk)
        except ValueError as error:
            raise ApiUnreachable(str(error)) from error
        for frame in frames:
            event = _event(frame.event, frame.data, frame.id)
            if event is None:
                continue
            events.append(event)
            if self._ends_with_task and event.ends_task:
                self.over = True
                break
        # A quiet stream tells its place in frames without data: a reconnect need not read it all again.
        self.cursor = self._decoder.last_id or self.cursor
        if self._decoder.retry_ms is not None:
            self._retry_ms = self._decoder.retry_ms
        return events

    def lost(self, fault: Fault | None) -> float:
        """Seconds to wait before the next connection; the one that was is gone. None: it ended in order.

        Raises ApiUnreachable when the API has not come back for PATIENCE_SECONDS.
        """
        if fault is not None and fault.idle and self._idle_seconds is not None:
            self.over = True
            return 0.0
        now = clock.monotonic()
        if self._given_up is None:
            self._given_up = now + PATIENCE_SECONDS
        elif now > self._given_up:
            raise ApiUnreachable(fault.message if fault else "The API closes the stream again and again.")
        self._failures += 1
        return float(min(self._retry_ms / 1000 * self._failures, _LONGEST_PAUSE_SECONDS))


def _event(kind: str, data: str, cursor: str | None) -> Event | None:
    """The event of one frame; None for data that is no object."""
    try:
        document = json.loads(data)
    except ValueError:
        return None
    if not isinstance(document, Mapping):
        return None
    return Event.read({"type": kind, **document, "cursor": cursor})
