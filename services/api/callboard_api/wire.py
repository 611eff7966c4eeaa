"""HTTP off the wire: uvicorn's protocol on httptools, with bounds on how a client may send its request.

httptools gathers the pieces of a header or a trailer for as long as they come, and takes the body of a
request that offers an upgrade, as each of Java's client's does, for another protocol. h11, uvicorn's other
parser, has bounds, but goes back over the spaces of a header for seconds. How long a head takes is bounded
nowhere.
"""

from __future__ import annotations

import asyncio
from typing import Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: The request line and the headers; a trailer too. More may pass in one piece, as the socket's buffer has it.
HEAD_BYTES: Final = 64 * 1024
#: From a head's first byte to its last.
HEAD_SECONDS = 30.0


class BoundedProtocol(HttpToolsProtocol):
    """What `uvicorn.Config(http=…)` takes."""

    parser: _Parser  # type: ignore[assignment]

    _in_head = True
    _heard = False
    _gathered = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.parser = _Parser(self)
        # One that never asks anything is as idle as one that asks nothing more.
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._in_head = self._heard = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if not self.parser.offers_upgrade:
            self._in_head, self._heard = False, True
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._heard = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.parser.offers_upgrade:
            self._heard = True
            super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        self._heard = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        # The piece in which a head begins may begin with other requests.
        self._gathered = 0 if self._heard else self._gathered + len(data)
        if self._gathered > HEAD_BYTES:
            self._end_gathering()
        elif self._in_head:
            if self._head_timer is None:
                self._start_head_timer()
        else:
            self._stop_head_timer()
            if not self._answering:
                # The rest of a body that was not waited for, or an empty line: uvicorn has just stopped the
                # clock of an idle connection, and nothing would start it again.
                self._await_request()

    def _end_gathering(self) -> None:
        if not self._in_head:
            self.transport.close()  # in the middle of a request that may have its answer already
        elif self._answering:
            self.flow.pause_reading()  # until the answers to requests before it are out
        else:
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


class _Parser:
    """httptools' parser, for which no request offers an upgrade: a server may pass over an offer."""

    def __init__(self, protocol: BoundedProtocol) -> None:
        self._protocol = protocol
        self._parser = self._made()

    def _made(self) -> httptools.HttpRequestParser:
        made = httptools.HttpRequestParser(self._protocol)
        made.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return made

    @property
    def offers_upgrade(self) -> bool:
        return self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT"

    def feed_data(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as offer:
                if not self.offers_upgrade:
                    raise
                # It has stopped behind the head, whatever length of a body that names. Another one gets the
                # head without the offer, and then the rest.
                [rest_at] = offer.args
                rest, head = rest[rest_at:], self._head()
                self._parser = self._made()
                self._parser.feed_data(head)
            else:
                return

    def _head(self) -> bytes:
        version = self._parser.get_http_version().encode()
        lines = [b" ".join((self._parser.get_method(), self._protocol.url, b"HTTP/" + version))]
        lines += [b": ".join(header) for header in self._protocol.headers if header[0] != b"upgrade"]
        return b"\r\n".join((*lines, b"", b""))

    def should_upgrade(self) -> bool:
        return self._parser.should_upgrade()

    def get_method(self) -> bytes:
        return self._parser.get_method()

    def get_http_version(self) -> str:
        return self._parser.get_http_version()

    def should_keep_alive(self) -> bool:
        return self._parser.should_keep_alive()
