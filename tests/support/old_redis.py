"""A server that answers as an old Redis would: enough to be asked for its version, and refused."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Answer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        while count := self.rfile.readline():
            words = []
            for _ in range(int(count[1:])):
                size = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(size + 2)[:-2])
            self.wfile.write(server.answer(words))


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, version: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.version = version

    def answer(self, words: list[bytes]) -> bytes:
        command = words[0].upper().decode()
        if command == "HELLO" and int(self.version.split(".")[0]) >= 6:
            return b"%2\r\n+server\r\n+redis\r\n+proto\r\n:3\r\n"
        if command == "INFO":
            told = f"redis_version:{self.version}\r\nmaxmemory_policy:noeviction\r\n".encode()
            return b"$%d\r\n%s\r\n" % (len(told), told)
        if command == "PING":
            return b"+PONG\r\n"
        told = words[1] if len(words) > 1 else b""
        return b"-ERR unknown command `%s`, with args beginning with: `%s`, \r\n" % (words[0], told)


@contextmanager
def old_redis(version: str) -> Iterator[str]:
    """The URL of a server that says it is Redis `version`; before 6.0 it has no HELLO."""
    with _Server(version) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        finally:
            server.shutdown()
            thread.join()
