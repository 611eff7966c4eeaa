"""A loopback server whose every answer a test writes itself, byte by byte if need be."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Answer = Callable[["Exchange"], None]


class Exchange:
    """One request and the ways to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler, released: threading.Event) -> None:
        self.headers = handler.headers
        self.path = handler.path
        self._handler = handler
        self._released = released

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        """A whole answer; `content_type="…"` becomes Content-Type. A header that is "" is left out."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        fields = {"content-type": "text/html", "content-length": str(len(body)), **named}
        reason = {200: "OK", 301: "Moved Permanently", 404: "Not Found"}.get(status, "Whatever")
        lines = [
            f"HTTP/1.1 {status} {reason}",
            *(f"{name}: {value}" for name, value in fields.items() if value),
            "connection: close",
        ]
        self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def raw(self, data: bytes) -> None:
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def hang(self) -> None:
        """Say nothing until the test is over."""
        self._released.wait(30)


class OddServer:
    """`server.answers["/a"] = lambda exchange: exchange.send(200, b"…")`; `server.url` is its address."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.seen: list[Exchange] = []
        self._released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                exchange = Exchange(self, outer._released)
                outer.seen.append(exchange)
                outer.answers[self.path](exchange)
                self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # readers that hang up are the subject of these tests

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> OddServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
