"""What bytes make requests: kept connections, long heads, trailers, offers of an upgrade, what is no HTTP."""

from __future__ import annotations

import json
import select
import socket
import time

import pytest

from tests.support.api_server import RunningApi, raw


def test_connections_are_kept(api: RunningApi) -> None:
    once = "GET /livez HTTP/1.1\nHost: {host}\n\n"
    last = "GET /livez HTTP/1.1\nHost: {host}\nConnection: close\n\n"
    assert raw(api, once + once + last, hang_up=False).count("HTTP/1.1 200 OK") == 3


def test_an_endless_header_is_not_gathered(api: RunningApi) -> None:
    piece, told = b"x" * 16_384, b""
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nX-Long: ")
        for _ in range(4096):
            try:
                client.sendall(piece)
            except OSError:
                break
            if select.select([client], [], [], 0)[0]:
                told = client.recv(100)
                break
        else:
            pytest.fail("64 MiB of one header were taken")
    assert told.startswith(b"HTTP/1.1 431 ") or not told


def test_nor_is_an_endless_trailer(api: RunningApi) -> None:
    piece = b"x" * 16_384
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(
            f"GET /livez HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nTransfer-Encoding: chunked\r\n\r\n"
            "0\r\nX-Long: ".encode()
        )
        for _ in range(4096):
            try:
                client.sendall(piece)
            except OSError:
                break
        else:
            pytest.fail("64 MiB of one trailer were taken")


def test_many_small_requests_in_one_go_are_all_answered(api: RunningApi) -> None:
    """However long they are together: each head is bounded by itself."""
    one = "GET /livez HTTP/1.1\nHost: {host}\n\n"
    last = "GET /livez HTTP/1.1\nHost: {host}\nConnection: close\n\n"
    answers = raw(api, one * 1999 + last, hang_up=False)
    assert (answers.count("HTTP/1.1 200 OK"), answers.count("HTTP/1.1 ")) == (2000, 2000)


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
def test_a_request_that_offers_an_upgrade_is_taken_as_it_is(api: RunningApi, upgrade: str) -> None:
    """Java's client offers HTTP/2 with every first request; a body is never the next request."""
    body = json.dumps({"name": "add", "payload": {"a": 1}})
    offer = f"Connection: Upgrade, HTTP2-Settings\nUpgrade: {upgrade}\nHTTP2-Settings: AAMAAABkAAQAAP__\n"
    post = "POST /v1/tasks HTTP/1.1\nHost: {host}\nContent-Type: application/json\n"
    last = "GET /livez HTTP/1.1\nHost: {host}\nConnection: close\n\n"
    answers = raw(api, f"{post}{offer}Content-Length: {len(body)}\n\n{body}{last}", hang_up=False)
    assert answers.startswith("HTTP/1.1 202 Accepted")
    assert answers.count("HTTP/1.1 ") == 2
    assert "HTTP/1.1 200 OK" in answers


@pytest.mark.parametrize(
    "head",
    [
        "X: " + " " * 60_000 + "\0",
        "Accept-Encoding: gzip" + " " * 60_000 + "x",
        "Accept: a" + " " * 60_000 + "b",
    ],
    ids=["no header", "a coding", "a type"],
)
@pytest.mark.timeout(20)
def test_a_header_of_spaces_holds_nobody_up(api: RunningApi, head: str) -> None:
    """A pattern that goes back over the spaces takes half a minute for each, and the process stands still."""
    assert raw(api, f"GET /openapi.json HTTP/1.1\nHost: {{host}}\nConnection: close\n{head}\n\n")


def test_a_long_header_and_bodies_in_one_go_are_taken(api: RunningApi) -> None:
    long = f"GET /livez HTTP/1.1\nHost: {{host}}\nX-Long: {'x' * 60_000}\n\n"
    body = json.dumps({"name": "add", "payload": {"a": 1}, "tags": ["x" * 100] * 50}) + " " * 60_000
    post = (
        "POST /v1/tasks HTTP/1.1\nHost: {host}\nContent-Type: application/json\n"
        f"Content-Length: {len(body)}\n\n{body}"
    )
    last = "GET /livez HTTP/1.1\nHost: {host}\nConnection: close\n\n"
    answers = raw(api, long + post + post + long + last, hang_up=False)
    assert answers.count("HTTP/1.1 200 OK") == 3
    assert answers.count("HTTP/1.1 202 Accepted") == 2


def test_a_websocket_is_refused_politely(api: RunningApi) -> None:
    answer = raw(
        api,
        "GET /v1/ws HTTP/1.1\nHost: {host}\nConnection: Upgrade\nUpgrade: websocket\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\n",
    )
    assert answer.startswith("HTTP/1.1 404")


def test_many_offers_in_one_go_are_all_passed_over(api: RunningApi) -> None:
    one = "GET /livez HTTP/1.1\nHost: {host}\nConnection: Upgrade\nUpgrade: h2c\n\n"
    last = "GET /livez HTTP/1.1\nHost: {host}\nConnection: close\n\n"
    assert raw(api, one * 1999 + last, hang_up=False).count("HTTP/1.1 200 OK") == 2000


def test_a_chunked_body_behind_an_offer_in_pieces_is_read(api: RunningApi) -> None:
    body = json.dumps({"name": "add", "payload": {"a": 1}})
    text = (
        f"POST /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nContent-Type: application/json\r\n"
        "Connection: Upgrade, close\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n"
        f"{len(body):x}\r\n{body}\r\n0\r\nX-Trailer: 1\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in text.encode():
            client.sendall(bytes([byte]))
        told = b""
        while piece := client.recv(65536):
            told += piece
    assert told.startswith(b"HTTP/1.1 202 Accepted")


def test_a_long_head_behind_a_running_answer_does_not_cut_it(api: RunningApi) -> None:
    """Nor does it get its own refusal into it."""
    task = api.submit()["id"]
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(
            f"GET /v1/tasks/{task} HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nPrefer: wait=1\r\n\r\n".encode()
        )
        told = b""
        client.sendall(b"GET /livez HTTP/1.1\r\nX-Long: ")
        try:
            for _ in range(16):
                client.sendall(b"x" * 16_384)
                time.sleep(0.02)  # so that the pieces arrive one by one
            while piece := client.recv(65536):
                told += piece
        except ConnectionError:
            pass  # it has closed with pieces unread, and the kernel may drop what was said last
    assert told.startswith(b"HTTP/1.1 202 ")
    answer, _, refusal = told.partition(b"HTTP/1.1 431 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["id"] == task
    assert not refusal or refusal.startswith(b"Request Header Fields Too Large")
