"""Ports on this machine that nobody listens on."""

from __future__ import annotations

import errno
import socket

from callboard.errors import CallboardError, InvalidSetting

#: How far from the wanted port a free one is looked for.
REACH = 100


class NoFreePort(CallboardError):
    """No port near the wanted one is free."""

    code = "no-free-port"


def free_port(host: str, wanted: int, taken: set[int] | None = None) -> int:
    """`wanted` if it is free on `host` and not in `taken`, else the next that is; 0 takes any free one.

    Raises NoFreePort, and InvalidSetting for a host that is not this machine's.
    """
    for port in range(wanted, min(wanted + REACH, 65536)) if wanted else (0,) * REACH:
        found = _bindable(host, port)
        if found is not None and found not in (taken or ()):
            return found
    raise NoFreePort(f"No port from {wanted} to {min(wanted + REACH, 65536) - 1} is free on {host}.")


def _bindable(host: str, port: int) -> int | None:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # Without it a port whose last connections are still being closed would count as taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            bound: int = probe.getsockname()[1]
            return bound
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise InvalidSetting(
            f"CALLBOARD_API_HOST or CALLBOARD_OPS_HOST: cannot listen on {host!r}: {error.strerror or error}."
        ) from error
