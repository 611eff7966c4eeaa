"""The ops port of a service: `/livez`, `/readyz` and `/metrics`, for probes and Prometheus."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from callboard.errors import InvalidSetting
from callboard.metrics import Metrics

Check = Callable[[], bool | str]
"""Answers a probe: True, or what is wrong (False: nothing to say about it). Must not block."""

#: A client that sends nothing for so long is hung up on.
_TIMEOUT_SECONDS = 5.0


class OpsServer:
    """A small HTTP server with a thread for each request, on a port of its own.

    Probes answer 200 "ok" or 503 with the reason, whatever else goes on in the process; unknown paths 404.

    Parameters:
        host, port: where to listen; port 0 takes a free one, see `port`.
        live: whether the process's own loops turn. Not whether Redis answers: a restart mends no Redis.
        ready: whether it can do its work now.
        metrics: what `/metrics` shows.
    """

    def __init__(self, host: str, port: int, *, live: Check, ready: Check, metrics: Metrics) -> None:
        self._host, self._wanted = host, port
        self._checks = {"/livez": live, "/readyz": ready}
        self._metrics = metrics
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen and answer. Raises InvalidSetting when the address cannot be had."""
        try:
            self._server = _Server(self._host, self._wanted, self._answer)
        except OSError as error:
            raise InvalidSetting(
                f"CALLBOARD_OPS_HOST, CALLBOARD_OPS_PORT: cannot listen on {self._host} port {self._wanted}: "
                f"{error.strerror or error}. Port 0 takes a free one."
            ) from error
        threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="callboard-ops", daemon=True
        ).start()

    @property
    def port(self) -> int:
        """The port that it listens on; the one asked for before the start."""
        return self._wanted if self._server is None else int(self._server.server_address[1])

    def stop(self) -> None:
        """Stop listening; safe to call twice and before the start."""
        server, self._server = self._server, None
        if server is not None:
            self._wanted = int(server.server_address[1])
            server.shutdown()
            server.server_close()

    def _answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        if path == "/metrics":
            body, content_type = self._metrics.exposition(accept)
            return 200, content_type, body
        check = self._checks.get(path)
        if check is None:
            return 404, "text/plain; charset=utf-8", b"not found: /livez, /readyz, /metrics\n"
        try:
            verdict = check()
        except Exception as error:
            verdict = f"the check failed: {error!r}"
        if verdict is True:
            return 200, "text/plain; charset=utf-8", b"ok\n"
        return 503, "text/plain; charset=utf-8", f"{verdict or 'not ok'}\n".encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 32

    def __init__(self, host: str, port: int, answer: Callable[[str, str], tuple[int, str, bytes]]) -> None:
        self.answer = answer
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # The base class asks DNS for its own name, which can take seconds in a pod.
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is nobody's fault."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _TIMEOUT_SECONDS
    server: _Server

    def do_GET(self) -> None:
        status, content_type, body = self.server.answer(
            self.path.partition("?")[0], self.headers.get("Accept", "")
        )
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def version_string(self) -> str:
        return "callboard"

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds; nobody reads a line for each."""
