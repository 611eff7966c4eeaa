"""HTTP off the wire: uvicorn's protocol, with a bound on what a client may send before its request is known.

httptools gathers a header's pieces for as long as they come; h11, which is used without it, has a bound.
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
_ANSWER: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 52\r\nconnection: close\r\n\r\nThe request line and headers are longer than 64 KiB."
)


def protocol() -> type[asyncio.Protocol] | str:
    """What `uvicorn.Config(http=…)` takes."""
    return "h11" if HttpToolsProtocol is None else _bounded()


def _bounded() -> type[asyncio.Protocol]:
    class Bounded(HttpToolsProtocol):
        _in_head = True
        _head = 0

        def on_message_begin(self) -> None:
            self._in_head, self._head = True, 0
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._in_head = False
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            before = self._in_head
            super().data_received(data)
            # The piece in which a head begins may begin with another request's body.
            if not (before and self._in_head) or self.transport.is_closing():
                return
            self._head += len(data)
            if self._head > HEAD_BYTES:
                self.transport.write(_ANSWER)
                self.transport.close()

    return Bounded
