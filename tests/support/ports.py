"""Ports for what the tests start: the one door, so that nobody takes a port between its choice and its use.

A port that `bind` finds is in the range from which the kernel gives every outgoing connection its own, and
is anybody's again at once: the same one came twice in three hundred, and a client of a server that is away
can take the server's. These come from below that range, and each goes to one process at a time.
"""

from __future__ import annotations

import os
import random
import socket
from collections import deque
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

# Below the ports of Kubernetes' services too, which the tests' cluster has.
_FIRST, _LAST = 20_000, 29_999
#: How many ports stay ours after they were given out; by then their servers have them.
_HELD = 256


def _candidates() -> Iterator[int]:
    """Every port of ours, in an order of this process's own, again and again."""
    ports = [port for port in range(_FIRST, _LAST + 1) if port not in _outgoing()]
    # Not `random` itself, which Hypothesis seeds alike in all processes. Without one left, any is better.
    random.SystemRandom().shuffle(ports)
    return chain.from_iterable(repeat(ports or [0]))


def _outgoing() -> range:
    """What the kernel takes for connections."""
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    except OSError:
        return range(0)  # no Linux; macOS and BSD begin at 49,152
    return range(int(first), int(last) + 1)


_order = _candidates()
_locks: deque[int] = deque()


def free_port() -> int:
    """A port that nobody listens on, at any address, and that no other caller gets while a server starts."""
    for port, _ in zip(_order, range(_LAST - _FIRST), strict=False):
        # UDP's port of that number is the lock: nobody uses it, and it ends with this process.
        with socket.socket(type=socket.SOCK_DGRAM) as lock, socket.socket() as probe:
            try:
                probe.bind(("", port))
                found: int = probe.getsockname()[1]
                lock.bind(("127.0.0.1", found))
            except OSError:
                continue
            _locks.append(lock.detach())
        if len(_locks) > _HELD:
            os.close(_locks.popleft())
        return found
    raise AssertionError(f"no port from {_FIRST} to {_LAST} is free")
