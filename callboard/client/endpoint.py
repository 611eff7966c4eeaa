"""What both clients share of HTTP: the address, the headers, and how a failure reads."""

from __future__ import annotations

import re
from typing import Any

import httpx

from callboard import __version__, settings
from callboard.client.exchange import Call, Fault
from callboard.errors import InvalidSetting

_CONNECT_SECONDS = 5.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Endpoint:
    """Where the API is, and with which key; by default as CALLBOARD_URL and CALLBOARD_KEY say."""

    def __init__(self, url: str | None, key: str | None) -> None:
        if url is None:
            known = settings.load()
            url = known.url
            if key is None and known.key is not None:
                key = known.key.get_secret_value()
        self.url = url.rstrip("/")
        self._headers = {"User-Agent": f"callboard/{__version__}", "Accept": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    def options(self) -> dict[str, Any]:
        """Arguments of httpx's clients. Raises InvalidSetting for a URL that is none."""
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise InvalidSetting(f"{self.url!r} is not the URL of an API: {error}") from error
        near = url.host in _LOOPBACK
        return {
            "base_url": self.url,
            "headers": self._headers,
            # A proxy from the environment is not for this machine's own API.
            "trust_env": not near,
            # Reading the certificates takes longer than most commands; plain HTTP on this machine needs none.
            "verify": not (near and url.scheme == "http"),
            # A redirect would take the key to whoever is named there.
            "follow_redirects": False,
        }

    def request_of(self, call: Call) -> dict[str, Any]:
        """Arguments of httpx's `build_request`."""
        return {
            "method": call.method,
            "url": call.path,
            "params": list(call.params),
            "json": call.body,
            "headers": dict(call.headers),
            "timeout": httpx.Timeout(call.read_seconds, connect=_CONNECT_SECONDS),
        }

    def fault_of(self, error: httpx.HTTPError) -> Fault:
        """What an exchange is told of a request without an answer."""
        unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        cause = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
        return Fault(
            f"No answer from {self.url}: {cause.rstrip('.')}.",
            not unsent,
            idle=isinstance(error, httpx.ReadTimeout),
        )
