"""`clients.http.fetch` against a real server that behaves in every way a server should not."""

from __future__ import annotations

import gzip
import socket
import ssl
from collections.abc import Iterator
from email.utils import formatdate

import httpx
import pytest

from callboard import clock
from callboard_apps.clients import http
from callboard_apps.clients.addresses import GuardedTransport, is_public
from callboard_apps.clients.failures import (
    Broken,
    Busy,
    ForbiddenAddress,
    Permanent,
    Rejected,
    Temporary,
    TooLarge,
    TooSlow,
    Unreachable,
    Unreadable,
    Untrusted,
)
from callboard_apps.clients.http import Policy, fetch, retry_after_ms
from tests.applications.odd_server import OddServer

PAGE = b"<!doctype html><title>Hello</title><p>A page."


@pytest.fixture
def server() -> Iterator[OddServer]:
    with OddServer() as running:
        yield running


def test_a_page_comes_with_its_address_type_and_charset(server: OddServer) -> None:
    server.answers["/a"] = lambda e: e.send(200, PAGE, content_type="Text/HTML; Charset=ISO-8859-2")

    page = fetch(f"{server.url}/a")

    assert page.url == f"{server.url}/a"
    assert page.content_type == "text/html"
    assert page.charset == "iso-8859-2"
    assert page.body == PAGE
    assert server.seen[0].headers["user-agent"].startswith("Callboard/")


def test_what_arrives_is_told_as_it_arrives(server: OddServer) -> None:
    body = b"x" * 300_000
    server.answers["/a"] = lambda e: e.send(200, body, content_type="text/plain")
    told: list[tuple[int, int | None]] = []

    fetch(f"{server.url}/a", watch=lambda received, total: told.append((received, total)))

    assert len(told) > 1
    assert told[-1] == (300_000, 300_000)
    assert told == sorted(told)


def test_redirects_are_followed_and_listed(server: OddServer) -> None:
    server.answers["/old"] = lambda e: e.send(301, location="/newer")
    server.answers["/newer"] = lambda e: e.send(302, location=f"{server.url}/new?x=1")
    server.answers["/new?x=1"] = lambda e: e.send(200, PAGE)

    page = fetch(f"{server.url}/old")

    assert page.url == f"{server.url}/new?x=1"
    assert page.redirects == (f"{server.url}/old", f"{server.url}/newer")


def test_redirects_in_a_circle_are_given_up(server: OddServer) -> None:
    server.answers["/a"] = lambda e: e.send(302, location="/b")
    server.answers["/b"] = lambda e: e.send(302, location="/a")

    with pytest.raises(Unreadable, match="circle"):
        fetch(f"{server.url}/a")
    assert len(server.seen) == 2


def test_a_long_chain_of_redirects_is_given_up(server: OddServer) -> None:
    for i in range(20):
        server.answers[f"/{i}"] = lambda e, i=i: e.send(302, location=f"/{i + 1}")  # type: ignore[misc]

    with pytest.raises(Unreadable, match="More than 5 redirects"):
        fetch(f"{server.url}/0")
    assert len(server.seen) == 6


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://"])
def test_redirects_out_of_the_web_are_not_followed(server: OddServer, place: str) -> None:
    server.answers["/a"] = lambda e: e.send(302, location=place)

    with pytest.raises((Permanent, Unreachable)):
        fetch(f"{server.url}/a")


def test_a_step_down_from_https_is_not_followed() -> None:
    here, there = httpx.URL("https://example.org/a"), httpx.URL("http://example.org/a")

    with pytest.raises(Unreadable, match="plain http"):
        http._check_redirect(here, there, [str(here)], Policy())


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "404 Not Found: the page does not exist"),
        (410, "removed for good"),
        (401, "login"),
        (418, "418"),
    ],
)
def test_a_no_is_permanent_and_explained(server: OddServer, status: int, words: str) -> None:
    server.answers["/a"] = lambda e: e.send(status, b"no")

    with pytest.raises(Rejected, match=words) as caught:
        fetch(f"{server.url}/a")
    assert caught.value.status == status


@pytest.mark.parametrize("status", [408, 425, 429, 503])
def test_come_back_later_is_temporary_and_says_when(server: OddServer, status: int) -> None:
    server.answers["/a"] = lambda e: e.send(status, retry_after="7")

    with pytest.raises(Busy) as caught:
        fetch(f"{server.url}/a")
    assert caught.value.retry_after_ms == 7000


@pytest.mark.parametrize("status", [500, 502, 504, 599])
def test_a_broken_server_is_temporary(server: OddServer, status: int) -> None:
    server.answers["/a"] = lambda e: e.send(status)

    with pytest.raises(Broken):
        fetch(f"{server.url}/a")


def test_an_answer_without_a_page_is_permanent(server: OddServer) -> None:
    server.answers["/a"] = lambda e: e.send(204, content_length="")

    with pytest.raises(Unreadable, match="204"):
        fetch(f"{server.url}/a")


def test_an_announced_excess_is_refused_unread(server: OddServer) -> None:
    server.answers["/a"] = lambda e: e.send(200, b"<p>", content_length="5000001")

    with pytest.raises(TooLarge, match=r"4\.768 MiB announced"):
        fetch(f"{server.url}/a")


def test_an_endless_body_is_read_up_to_the_cap(server: OddServer) -> None:
    sent = 0

    def endless(exchange):
        nonlocal sent
        exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n")
        while True:
            exchange.raw(b"a" * 10_000)
            sent += 10_000

    server.answers["/a"] = endless

    with pytest.raises(TooLarge, match=r"limit of 97\.66 KiB"):
        fetch(f"{server.url}/a", Policy(max_bytes=100_000))
    # What the kernel's buffers swallow comes on top of the cap; it is not all of eternity.
    assert sent < 20_000_000


def test_a_compressed_bomb_counts_by_its_unpacked_size(server: OddServer) -> None:
    bomb = gzip.compress(b"a" * 5_000_000)
    server.answers["/a"] = lambda e: e.send(200, bomb, content_encoding="gzip")

    assert len(bomb) < 10_000
    with pytest.raises(TooLarge):
        fetch(f"{server.url}/a")


def test_damaged_compression_is_permanent(server: OddServer) -> None:
    server.answers["/a"] = lambda e: e.send(200, b"no gzip at all", content_encoding="gzip")

    with pytest.raises(Unreadable, match="damaged"):
        fetch(f"{server.url}/a")


@pytest.mark.parametrize("kind", ["image/png", "application/pdf", "application/json"])
def test_what_is_no_text_is_permanent(server: OddServer, kind: str) -> None:
    server.answers["/a"] = lambda e: e.send(200, b"\x89PNG", content_type=kind)

    with pytest.raises(Unreadable, match=kind):
        fetch(f"{server.url}/a")


@pytest.mark.parametrize(
    ("body", "kind"), [(PAGE, "text/html"), (b"just words", "text/plain"), (b"\x7fELF\0\0", None)]
)
def test_without_a_content_type_the_bytes_tell(server: OddServer, body: bytes, kind: str | None) -> None:
    server.answers["/a"] = lambda e: e.send(200, body, content_type="")

    if kind is None:
        with pytest.raises(Unreadable):
            fetch(f"{server.url}/a")
    else:
        assert fetch(f"{server.url}/a").content_type == kind


def test_a_silent_server_is_too_slow(server: OddServer) -> None:
    server.answers["/a"] = lambda e: e.hang()

    with pytest.raises(TooSlow, match=r"Silent for more than 0\.1 s"):
        fetch(f"{server.url}/a", Policy(read_seconds=0.1))


def test_a_server_that_never_pauses_for_long_is_still_bounded(
    server: OddServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now)

    def drip(exchange):
        nonlocal now
        exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n")
        for _ in range(1000):
            exchange.raw(b"a")
            now += 1

    server.answers["/a"] = drip

    with pytest.raises(TooSlow, match="longer than 30 s"):
        fetch(f"{server.url}/a", Policy(total_seconds=30))


def test_a_connection_that_breaks_is_temporary(server: OddServer) -> None:
    server.answers["/a"] = lambda e: e.raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 99\r\n\r\nabc"
    )

    with pytest.raises(Unreachable, match="broke"):
        fetch(f"{server.url}/a")


def test_a_server_that_speaks_no_http_is_temporary(server: OddServer) -> None:
    server.answers["/a"] = lambda e: e.raw(b"220 smtp.example ESMTP\r\n")

    with pytest.raises(Unreachable):
        fetch(f"{server.url}/a")


def test_nobody_listening_is_temporary() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match="No connection"):
            fetch(f"http://127.0.0.1:{bound.getsockname()[1]}/")


def test_an_unknown_name_is_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unreachable, match="Name or service not known"):
        fetch("http://no-such-host.example/")


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://127.0.0.1/a", "http://", "http://[::1"])
def test_what_is_no_web_address_is_permanent(url: str) -> None:
    with pytest.raises(Unreadable):
        fetch(url)


def test_a_bad_certificate_is_permanent() -> None:
    error = httpx.ConnectError("certificate verify failed")
    error.__cause__ = ssl.SSLCertVerificationError("expired")

    failure = http._translated(error, "https://example.org/", Policy())

    assert isinstance(failure, Untrusted)
    assert "expired" in str(failure)


def test_every_failure_is_of_one_of_the_two_kinds() -> None:
    assert not issubclass(Temporary, Permanent)
    assert {Busy, Broken, TooSlow, Unreachable} <= set(Temporary.__subclasses__())
    assert {Rejected, TooLarge, Unreadable, Untrusted, ForbiddenAddress} <= set(Permanent.__subclasses__())


def test_retry_after_is_read_as_seconds_or_as_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: 1_800_000_000_000)

    assert retry_after_ms(" 12 ") == 12_000
    assert retry_after_ms(formatdate(1_800_000_090, usegmt=True)) == 90_000
    assert retry_after_ms(formatdate(1_700_000_000, usegmt=True)) == 0
    for nothing in (None, "", "soon", "-5", "1.5", "٣"):
        assert retry_after_ms(nothing) is None


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_guarded_fetches_refuse_this_machine(server: OddServer) -> None:
    server.answers["/a"] = lambda e: e.send(200, PAGE)

    with pytest.raises(ForbiddenAddress, match="inside this network"):
        fetch(f"{server.url}/a", Policy(private_addresses=False))
    assert server.seen == []


def _resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    asked: list[str] = []

    def answer(host: str, port: int, **options: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


def test_a_guarded_visit_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _resolving(monkeypatch, "93.184.216.34")
    visits: list[httpx.Request] = []

    def inner(request: httpx.Request) -> httpx.Response:
        visits.append(request)
        return httpx.Response(200)

    with httpx.Client(transport=GuardedTransport(httpx.MockTransport(inner))) as client:
        response = client.get("https://example.org/a")

    assert asked == ["example.org"]
    assert visits[0].url == "https://93.184.216.34/a"
    assert visits[0].headers["host"] == "example.org"
    assert visits[0].extensions["sni_hostname"] == "example.org"
    assert response.request.url == "https://example.org/a"


def test_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _resolving(monkeypatch, "93.184.216.34", "10.0.0.1")
    transport = GuardedTransport(httpx.MockTransport(lambda request: httpx.Response(200)))

    with httpx.Client(transport=transport) as client, pytest.raises(ForbiddenAddress):
        client.get("http://example.org/")


def test_a_guarded_visit_tries_the_next_address(monkeypatch: pytest.MonkeyPatch) -> None:
    _resolving(monkeypatch, "93.184.216.34", "93.184.216.35")

    def inner(request: httpx.Request) -> httpx.Response:
        if request.url.host == "93.184.216.34":
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, text=request.url.host)

    with httpx.Client(transport=GuardedTransport(httpx.MockTransport(inner))) as client:
        assert client.get("http://example.org/").text == "93.184.216.35"
