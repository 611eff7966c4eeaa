"""Reading a page over HTTP, bounded in every direction, over httpx.

One function, `fetch`: time-outs, a cap on the size after decompression, a redirect policy, a list of
accepted content types. Every failure leaves as one of `failures`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC
from email.message import Message
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus
from typing import TypeVar

import certifi
import httpx

from callboard import __version__, clock
from callboard_apps.clients.addresses import GuardedTransport
from callboard_apps.clients.failures import (
    Broken,
    Busy,
    Rejected,
    ServiceFailure,
    TooLarge,
    TooSlow,
    Unreachable,
    Unreadable,
    Untrusted,
)

USER_AGENT = f"Callboard/{__version__}"
_COME_BACK_LATER = frozenset({408, 425, 429, 503})
_WHY = {
    401: "is behind a login",
    403: "is closed to this reader",
    404: "does not exist",
    410: "was removed for good",
    451: "is withheld for legal reasons",
}

E = TypeVar("E", bound=BaseException)

Watch = Callable[[int, int | None], None]
"""Called as the body arrives, with the bytes received and the bytes announced (None: not announced)."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How far a fetch may go. `read_seconds` is the longest silence, `total_seconds` the whole visit."""

    connect_seconds: float = 5.0
    read_seconds: float = 15.0
    total_seconds: float = 45.0
    max_bytes: int = 2 * 1024 * 1024
    max_redirects: int = 5
    content_types: tuple[str, ...] = ("text/html", "application/xhtml+xml", "text/plain")
    private_addresses: bool = True
    """False: loopback, private, link-local and metadata addresses are refused, at every redirect too."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer. `url` is where the redirects ended; `charset` is the header's, if it named one."""

    url: str
    content_type: str
    charset: str | None
    body: bytes
    redirects: tuple[str, ...] = ()


def fetch(url: str, policy: Policy = Policy(), watch: Watch | None = None) -> Page:
    """GET a page.

    Raises a `Temporary` failure (Unreachable, TooSlow, Busy, Broken) when another try may help, and a
    `Permanent` one (Rejected, TooLarge, Unreadable, Untrusted, ForbiddenAddress) when none will.
    """
    deadline = clock.monotonic() + policy.total_seconds
    visited: list[str] = []
    try:
        with _client(policy) as client:
            request = client.build_request("GET", url)
            while True:
                if request.url.scheme not in ("http", "https") or not request.url.host:
                    raise Unreadable(f"Not a web address: {request.url}.")
                response = client.send(request, stream=True)
                try:
                    following = response.next_request
                    if following is None:
                        return _page(response, tuple(visited), policy, deadline, watch)
                finally:
                    response.close()
                visited.append(str(request.url))
                _check_redirect(request.url, following.url, visited, policy)
                _check_deadline(deadline, url, policy)
                request = following
    except httpx.HTTPError as error:
        raise _translated(error, url, policy) from error
    except httpx.InvalidURL as error:
        raise Unreadable(f"Not a web address ({error}): {url}.") from error


def _client(policy: Policy) -> httpx.Client:
    transport: httpx.BaseTransport = httpx.HTTPTransport(verify=_tls(), trust_env=False)
    if not policy.private_addresses:
        transport = GuardedTransport(transport)
    return httpx.Client(
        transport=transport,
        timeout=httpx.Timeout(policy.read_seconds, connect=policy.connect_seconds),
        headers={"User-Agent": USER_AGENT, "Accept": ", ".join((*policy.content_types, "*/*;q=0.1"))},
        follow_redirects=False,
        # A proxy from the environment would look up names in our stead and walk past the guard.
        trust_env=False,
    )


@cache
def _tls() -> ssl.SSLContext:
    # The machine's own certificates and certifi's: a company's authority works, and so does a bare image.
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _check_redirect(here: httpx.URL, there: httpx.URL, visited: list[str], policy: Policy) -> None:
    if str(there) in visited:
        raise Unreadable(f"Redirects in a circle: {here} leads back to {there}.")
    if len(visited) > policy.max_redirects:
        raise Unreadable(f"More than {policy.max_redirects} redirects: {visited[0]} had led to {there}.")
    if here.scheme == "https" and there.scheme == "http":
        raise Unreadable(f"Redirects from https to plain http, which is not followed: {here}.")


def _page(
    response: httpx.Response,
    visited: tuple[str, ...],
    policy: Policy,
    deadline: float,
    watch: Watch | None,
) -> Page:
    _check_status(response)
    content_type, charset = _content_type(response)
    if content_type and content_type not in policy.content_types:
        raise Unreadable(f"Not a page of text but {content_type}: {response.url}.")
    body = b"".join(_pieces(response, policy, deadline, watch))
    if not content_type:
        if b"\0" in body[:1024]:
            raise Unreadable(f"Neither a content type nor text: {response.url}.")
        content_type = "text/html" if body[:1024].lstrip().startswith(b"<") else "text/plain"
    return Page(str(response.url), content_type, charset, body, visited)


def _pieces(
    response: httpx.Response, policy: Policy, deadline: float, watch: Watch | None
) -> Iterator[bytes]:
    # What counts is the size after decompression: a bomb is small on the line.
    announced = _announced(response)
    if announced is not None and announced > policy.max_bytes:
        raise TooLarge(
            f"Larger than the limit of {_size(policy.max_bytes)}: "
            f"{_size(announced)} announced by {response.url}; nothing was read."
        )
    received = 0
    for piece in response.iter_bytes():
        received += len(piece)
        if received > policy.max_bytes:
            raise TooLarge(
                f"Larger than the limit of {_size(policy.max_bytes)}: "
                f"stopped reading {response.url} at that size."
            )
        _check_deadline(deadline, str(response.url), policy)
        if watch is not None:
            watch(response.num_bytes_downloaded, announced)
        yield piece


def _check_status(response: httpx.Response) -> None:
    status = response.status_code
    if status == HTTPStatus.OK:
        return
    answer = f"{status} {response.reason_phrase}".strip()
    if status in _COME_BACK_LATER:
        raise Busy(
            f"{answer}: {response.url} asks to come back later.",
            retry_after_ms=retry_after_ms(response.headers.get("retry-after")),
        )
    if status >= 500:
        raise Broken(f"{answer}: the server of {response.url} failed.")
    if status >= 400:
        raise Rejected(
            f"{answer}: the page {_WHY.get(status, 'cannot be had like this')} ({response.url}).",
            status=status,
        )
    # 204 and 206 without a Range, 304 without a condition, a redirect without its address.
    raise Unreadable(f"{answer}: an answer without a page ({response.url}).")


def _content_type(response: httpx.Response) -> tuple[str, str | None]:
    header = response.headers.get("content-type", "")
    message = Message()
    message["content-type"] = header
    return (message.get_content_type() if header.strip() else ""), message.get_content_charset()


def _announced(response: httpx.Response) -> int | None:
    value = response.headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() else None


def _check_deadline(deadline: float, url: str, policy: Policy) -> None:
    if clock.monotonic() > deadline:
        raise TooSlow(f"Took longer than {policy.total_seconds:g} s as a whole: {url}.")


def retry_after_ms(value: str | None) -> int | None:
    """A Retry-After header (seconds, or a date) in milliseconds from now, ≥ 0; None if it says nothing."""
    if not value:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return int(value[:9]) * 1000
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp() * 1000) - clock.now_ms())


def _translated(error: httpx.HTTPError, url: str, policy: Policy) -> ServiceFailure:
    if isinstance(error, httpx.ConnectTimeout):
        return TooSlow(f"No connection within {policy.connect_seconds:g} s: {url}.")
    if isinstance(error, httpx.TimeoutException):
        return TooSlow(f"Silent for more than {policy.read_seconds:g} s: {url}.")
    if isinstance(error, httpx.UnsupportedProtocol):
        return Unreadable(f"Not a web address: {url}.")
    if isinstance(error, httpx.DecodingError):
        return Unreadable(f"Its compression is damaged: {url}.")
    certificate = _cause(error, ssl.SSLCertVerificationError)
    if certificate is not None:
        return Untrusted(f"Its certificate is not valid ({certificate}): {url}.")
    if isinstance(error, httpx.ConnectError):
        return Unreachable(f"No connection ({error}): {url}.")
    return Unreachable(f"The connection broke ({str(error) or type(error).__name__}): {url}.")


def _cause(error: BaseException, kind: type[E]) -> E | None:
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, kind):
        seen = seen.__cause__ or seen.__context__
    return seen


def _size(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.4g} KiB" if count < 1024 * 1024 else f"{count / (1024 * 1024):.4g} MiB"
