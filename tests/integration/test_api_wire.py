"""What bytes make requests: kept connections, long heads, trailers, offers of an upgrade, what is no HTTP."""

from __future__ import annotations

import json
import select
import socket

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


def test_what_is_no_http_is_told_what_was_wrong(api: RunningApi) -> None:
    answer = raw(api, "GET / HTTP/1.1\nHost: {host}\nno colon\n\n", hang_up=False)
    assert answer.startswith("HTTP/1.1 400 Bad Request")
    assert "Invalid HTTP request received. illegal header line: bytearray(b'no colon')" in answer


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
