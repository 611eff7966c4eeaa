"""HTTP off the wire: uvicorn's protocol, with bounds on what a client may send before its request is known.

httptools gathers a header's pieces for as long as they come; h11, which is used without it, has a bound on
their length. How long they take bounds neither of them, nor uvicorn.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
else:
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        HttpToolsProtocol = None

#: The request line and the headers. More may pass in one piece, which the socket's buffer bounds.
HEAD_BYTES: Final = 64 * 1024
#: From their first byte to their last.
HEAD_SECONDS = 30.0


def protocol() -> type[asyncio.Protocol] | str:
    """What `uvicorn.Config(http=…)` takes."""
    return "h11" if HttpToolsProtocol is None else _bounded()


def _bounded() -> type[asyncio.Protocol]:
    class Bounded(HttpToolsProtocol):
        _in_head = True
        _head = 0
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            # One that never asks anything is as idle as one that asks nothing more.
            self._await_request()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_head_timer()
            self._unset_keepalive_if_required()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            self._in_head, self._head = True, 0
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._in_head = False
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            before = self._in_head
            super().data_received(data)
            if self.transport.is_closing():
                return
            if not self._in_head:
                self._stop_head_timer()
                if not self._answering:
                    # The rest of a body that was not waited for, or an empty line: uvicorn has just stopped
                    # the clock of an idle connection, and nothing would start it again.
                    self._await_request()
                return
            if self._head_timer is None:
                self._start_head_timer()
            # The piece in which a head begins may begin with another request's body.
            self._head += len(data) if before else 0
            if self._head > HEAD_BYTES:
                self._refuse(
                    "431 Request Header Fields Too Large",
                    f"The request line and headers are longer than {HEAD_BYTES // 1024} KiB.",
                )

        @property
        def _answering(self) -> bool:
            # uvicorn does not declare it, but there is none before the first request.
            return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]

        def _await_request(self) -> None:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

        def _start_head_timer(self) -> None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

        def _stop_head_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _head_is_late(self) -> None:
            self._head_timer = None
            if self.transport.is_closing():
                return
            if self._answering:
                # Another request's answer must not be cut in two, and until it ends we may not even read on.
                self._start_head_timer()
                return
            self._refuse(
                "408 Request Timeout",
                f"The request line and headers have not arrived within {HEAD_SECONDS:g} s.",
            )

        def _refuse(self, status: str, text: str) -> None:
            self.transport.write(
                f"HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\n"
                f"content-length: {len(text)}\r\nconnection: close\r\n\r\n{text}".encode()
            )
            self.transport.close()

    return Bounded
