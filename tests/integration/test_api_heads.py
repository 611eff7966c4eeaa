"""How slowly a request may begin: heads that trickle in, connections that ask nothing, others that rest."""

from __future__ import annotations

import contextlib
import re
import select
import socket
from collections.abc import Callable, Iterator

import pytest

from callboard_api import wire
from tests.support.api_server import RunningApi

HEAD_SECONDS = 0.5

Connect = Callable[[], socket.socket]


@pytest.fixture(autouse=True)
def little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_SECONDS", HEAD_SECONDS)


@pytest.fixture
def connect(api: RunningApi) -> Iterator[Connect]:
    made: list[socket.socket] = []

    def connect() -> socket.socket:
        made.append(socket.create_connection(("127.0.0.1", api.port), timeout=20))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


def request(api: RunningApi, path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{api.port}", *headers, "", ""]
    return "\r\n".join(lines).encode()


def answer_of(connection: socket.socket) -> bytes:
    """One answer, to its last byte."""
    with connection.makefile("rb", buffering=0) as stream:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = stream.read(1)
            assert byte, f"closed after {head!r}"
            head += byte
        [length] = re.findall(rb"(?i)\r\ncontent-length: (\d+)\r\n", head)
        body = b""
        while len(body) < int(length):
            body += stream.read(int(length) - len(body)) or pytest.fail("closed within a body")
        return head + body


def to_the_end(connection: socket.socket) -> bytes:
    told = b""
    while piece := connection.recv(65536):
        told += piece
    return told


def trickle(connection: socket.socket, piece: bytes, most: int = 200) -> bytes:
    """Send `piece` ten times a second until the server says something; all that it says.

    That is nothing when a piece met the end of the connection: the kernel then drops what was said.
    """
    for _ in range(most):
        try:
            if select.select([connection], [], [], 0.1)[0]:
                return to_the_end(connection)
            connection.sendall(piece)
        except ConnectionError:
            return b""
    pytest.fail(f"the server took {most} pieces, and still waits")


SLOW_HEADS = {
    "header": (b"GET /livez HTTP/1.1\r\nX-Slow: ", b"x"),
    "path": (b"GET /", b"x"),
    "headers": (b"GET /livez HTTP/1.1\r\n", b"X-Slow: x\r\n"),
    "nothing more": (b"GET /livez HTTP/1.1\r\n", b""),
}


def is_late(told: bytes) -> bool:
    said = b"The request line and headers have not arrived within 0.5 s."
    return told.startswith(b"HTTP/1.1 408 Request Timeout\r\n") and told.endswith(said)


@pytest.mark.parametrize("head", SLOW_HEADS)
@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
def test_a_head_that_trickles_in_is_refused(api: RunningApi, connect: Connect, head: str, kept: bool) -> None:
    begin, piece = SLOW_HEADS[head]
    connection = connect()
    if kept:
        connection.sendall(request(api, "/livez"))
        assert answer_of(connection).startswith(b"HTTP/1.1 200 ")
    connection.sendall(begin)
    told = trickle(connection, piece)
    assert is_late(told) or (piece and not told)


def test_empty_lines_are_no_request(connect: Connect) -> None:
    told = trickle(connect(), b"\r\n")
    assert is_late(told) or not told


def test_a_head_in_pieces_is_taken_when_it_is_whole_in_time(
    api: RunningApi, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "HEAD_SECONDS", 60)
    connection = connect()
    for _ in range(3):
        for byte in request(api, "/livez"):
            connection.sendall(bytes([byte]))
        assert answer_of(connection).startswith(b"HTTP/1.1 200 ")


def test_a_connection_that_rests_between_requests_is_left_alone(api: RunningApi, connect: Connect) -> None:
    connection = connect()
    for _ in range(2):
        connection.sendall(request(api, "/livez"))
        assert answer_of(connection).startswith(b"HTTP/1.1 200 ")
        assert not select.select([connection], [], [], 3 * HEAD_SECONDS)[0], (
            "something came, or it was closed"
        )


def test_a_long_poll_is_not_cut_by_a_late_head_behind_it(api: RunningApi, connect: Connect) -> None:
    task = api.submit()["id"]
    connection = connect()
    connection.sendall(request(api, f"/v1/tasks/{task}", "Prefer: wait=1") + b"GET /livez HT")
    told = to_the_end(connection)
    assert told.startswith(b"HTTP/1.1 202 ")
    _, whole, rest = told.partition(b"HTTP/1.1 408 ")
    assert whole, "the late head is refused as soon as the answer before it is out"
    assert task.encode() in told
    assert is_late(whole + rest)


class TestSilence:
    """Connections that ask nothing are closed without a word, as uvicorn does after an answer."""

    @pytest.fixture(autouse=True)
    def short_rests(self, api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api.server.config, "timeout_keep_alive", 0.5)

    def test_from_the_start(self, connect: Connect) -> None:
        assert to_the_end(connect()) == b""

    @pytest.mark.parametrize("stray", [b"", b"\r\n"], ids=["nothing", "an empty line"])
    def test_after_an_answer(self, api: RunningApi, connect: Connect, stray: bytes) -> None:
        connection = connect()
        connection.sendall(request(api, "/livez"))
        assert answer_of(connection).startswith(b"HTTP/1.1 200 ")
        # Were this process held up here, the connection could be gone before; that is no fault.
        with contextlib.suppress(ConnectionError):
            connection.sendall(stray)
            assert to_the_end(connection) == b""

    @pytest.mark.parametrize("rest", [b"", b"12345"], ids=["nothing more", "some more"])
    def test_after_an_answer_that_did_not_wait_for_the_body(
        self, api: RunningApi, connect: Connect, rest: bytes
    ) -> None:
        connection = connect()
        connection.sendall(request(api, "/livez", "Content-Length: 10"))
        assert answer_of(connection).startswith(b"HTTP/1.1 200 ")
        # Were this process held up here, the connection could be gone before; that is no fault.
        with contextlib.suppress(ConnectionError):
            connection.sendall(rest)
            assert to_the_end(connection) == b""
