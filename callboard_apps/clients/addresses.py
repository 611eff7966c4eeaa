"""Which addresses a task may visit: a transport that looks a name up once, checks it, and goes there.

Checking first and letting the library look the name up again would leave a gap: a hostile name server
answers a public address to the check and 169.254.169.254 to the visit.
"""

from __future__ import annotations

import ipaddress
import socket

import httpx

from callboard_apps.clients.failures import ForbiddenAddress

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class GuardedTransport(httpx.BaseTransport):
    """Lets requests through to public addresses alone.

    Raises ForbiddenAddress for a name of which any address is loopback, private, link-local, multicast
    or reserved; httpx.ConnectError for a name that does not exist.
    """

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        last: httpx.ConnectError | None = None
        for address in self._checked(host, request):
            # The Host header and the name in the certificate stay those of the URL.
            visit = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": host},
            )
            try:
                return self._inner.handle_request(visit)
            except httpx.ConnectError as error:
                last = error
        raise last or httpx.ConnectError(f"{host} has no address", request=request)

    def close(self) -> None:
        self._inner.close()

    def _checked(self, host: str, request: httpx.Request) -> list[str]:
        try:
            found = socket.getaddrinfo(host, request.url.port or 0, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpx.ConnectError(str(error), request=request) from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not is_public(address):
                raise ForbiddenAddress(
                    f"Addresses inside this network are not visited: {host} is {address} ({request.url})."
                )
        return addresses


def is_public(address: str) -> bool:
    """Whether an address (IPv4 or IPv6, a zone allowed) belongs to the open Internet.

    An IPv4 address wrapped in an IPv6 one (mapped, 6to4, NAT64) is judged by itself.
    Raises ValueError for what is no address.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)))
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if inner is not None:
            return is_public(str(inner))
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved
