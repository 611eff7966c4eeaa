"""Reads a server-sent event stream in a thread, line by line, as a browser gets it."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.waiting import wait_until


@dataclass
class Received:
    """One frame: its event name, data and id; a frame without data is the opening or a ping."""

    event: str = ""
    data: Any = None
    id: str = ""
    comments: list[str] = field(default_factory=list)
    retry: str = ""


class EventReader:
    """Connects at once. `frames` grows; `ended` once the server has closed the stream."""

    def __init__(self, url: str, path: str, headers: dict[str, str] | None = None, **params: Any) -> None:
        self.frames: list[Received] = []
        self.status = 0
        self.headers: httpx.Headers = httpx.Headers()
        self.body = b""
        self.ended = False
        self._stop = threading.Event()
        self._socket: socket.socket | None = None
        self._client = httpx.Client(base_url=url, timeout=httpx.Timeout(10, read=60), verify=False)
        self._request = self._client.build_request(
            "GET", path, params=params, headers={"Accept": "text/event-stream", **(headers or {})}
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        wait_until(lambda: self.status or self.ended, description="the stream's head")
        if self.status == 200:
            wait_until(lambda: self.frames or self.ended, description="the stream's opening")

    @property
    def events(self) -> list[Received]:
        """Frames with data."""
        return [frame for frame in self.frames if frame.data is not None]

    @property
    def types(self) -> list[str]:
        return [frame.event for frame in self.events]

    @property
    def last_id(self) -> str:
        """What a browser would send as Last-Event-ID."""
        return [frame.id for frame in self.frames if frame.id][-1]

    def until(self, kind: str, count: int = 1, timeout: float = 60) -> Received:
        """Wait for the `count`-th event of this type."""
        wait_until(
            lambda: self.types.count(kind) >= count,
            timeout=timeout,
            description=f"event {kind} number {count}; so far {self.types}",
        )
        return [frame for frame in self.events if frame.event == kind][count - 1]

    def until_count(self, count: int, timeout: float = 60) -> None:
        """Wait for so many events."""
        wait_until(
            lambda: len(self.events) >= count,
            timeout=timeout,
            description=f"event number {count}; so far {self.types[-20:]}",
        )

    def until_ended(self, timeout: float = 60) -> None:
        wait_until(lambda: self.ended, timeout=timeout, description="the stream's end")

    def close(self) -> None:
        """Hang up."""
        self._stop.set()
        if self._socket is not None and not self.ended:
            with suppress(OSError):
                # Closing alone would wait for the thread that reads.
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._client.close()

    def __enter__(self) -> EventReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        try:
            answer = self._client.send(self._request, stream=True)
            self.headers = answer.headers
            if answer.status_code != 200:
                self.body = answer.read()
                self.status = answer.status_code
                return
            self._socket = answer.extensions["network_stream"].get_extra_info("socket")
            self.status = 200
            frame = Received()
            for line in answer.iter_lines():
                if not line:
                    self.frames.append(frame)
                    frame = Received()
                    continue
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                match name:
                    case "":
                        frame.comments.append(value)
                    case "event":
                        frame.event = value
                    case "data":
                        frame.data = json.loads(value)
                    case "id":
                        frame.id = value
                    case "retry":
                        frame.retry = value
        except (httpx.HTTPError, RuntimeError, OSError):
            if not self._stop.is_set():
                self.body = b"broken"
        finally:
            self.ended = True
