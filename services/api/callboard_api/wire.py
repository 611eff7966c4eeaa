"""HTTP off the wire: uvicorn's protocol, with bounds on how a client may send its request.

It is the one on h11. httptools is a tenth of a millisecond faster, but gathers the pieces of a header or a
trailer for as long as they come, and takes the body of a request that offers an upgrade for another request;
Java's client offers HTTP/2 with each. How long a head may take is bounded by neither, nor by uvicorn.
"""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

#: The request line and the headers; a trailer as well.
HEAD_BYTES: Final = 64 * 1024
#: From their first byte to their last.
HEAD_SECONDS = 30.0


class BoundedProtocol(H11Protocol):
    """What `uvicorn.Config(http=…)` takes, with HEAD_BYTES as its `h11_max_incomplete_event_size`."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def _should_upgrade(self) -> bool:
        return False  # an offer that a server may pass over; uvicorn warns of each

    def send_400_response(self, msg: str) -> None:
        # uvicorn calls it where it has caught what h11 has to say.
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        self._refuse(status, f"{msg} {error}")

    def _watch(self) -> None:
        """Have one clock run: of a head that has begun, or of a connection that asks nothing."""
        if self.transport.is_closing() or self._answering:
            self._stop_head_timer()
        elif self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._unset_keepalive_if_required()
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)
        else:
            # Nothing at all yet, or the rest of a body that was not waited for.
            self._stop_head_timer()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    @property
    def _answering(self) -> bool:
        # uvicorn does not declare it, but there is none before the first request.
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        self._refuse(408, f"The request line and headers have not arrived within {HEAD_SECONDS:g} s.")

    def _refuse(self, status: int, text: str) -> None:
        body = text.encode()
        if self._answering:
            self.cycle.disconnected = True  # what it still says goes nowhere
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [
                ("content-type", "text/plain; charset=utf-8"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            for event in (
                h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase),
                h11.Data(body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
