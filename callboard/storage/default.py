"""The process's own connection: what `.submit()` and handles use when nobody hands them another."""

from __future__ import annotations

import asyncio
import os
import threading
from weakref import WeakKeyDictionary

from callboard import settings as settings_module
from callboard.errors import StoreUnavailable
from callboard.settings import Settings
from callboard.storage.connection import AsyncConnection, Connection
from callboard.storage.embedded import address_in

_lock = threading.Lock()
_connection: Connection | None = None
_Options = tuple[str, str, int]
_options: _Options | None = None
_known: Settings | None = None
_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Options, AsyncConnection]] = WeakKeyDictionary()


def configure(
    url: str | None = None, *, namespace: str | None = None, settings: Settings | None = None
) -> None:
    """Choose the Redis of this process: by `url` and `namespace`, for what is not given by the settings.

    Without any address it is the server that `callboard up` started in CALLBOARD_DATA_DIR.
    Raises InvalidSetting. Handles made before keep their connection.
    """
    global _connection, _known, _options  # noqa: PLW0603 - one default a process, guarded by the lock
    known = settings or settings_module.load()
    address = url or known.redis_url or address_in(known.data_dir)
    if address is None:
        raise StoreUnavailable(
            "No Redis is configured: set CALLBOARD_REDIS_URL or call callboard.configure(url=…), "
            "or start `callboard up` in this folder."
        )
    with _lock:
        _options, _known = (address, namespace or known.namespace, known.events_keep), known
        _connection = None
        _loops.clear()


def configured() -> Settings:
    """The settings behind the process's connection: those given to `configure`, or the environment's."""
    _chosen()
    assert _known is not None
    return _known


def connection() -> Connection:
    """The process's connection for threads, made at first use."""
    global _connection  # noqa: PLW0603 - see configure
    if _connection is None:
        options = _chosen()
        with _lock:
            if _connection is None:
                url, namespace, keep = options
                _connection = Connection(url, namespace=namespace, events_keep=keep)
    return _connection


def async_connection(twin: Connection | None = None) -> AsyncConnection:
    """The connection of the running event loop, made at first use; to be called inside that loop.

    `twin`: the connection for threads whose Redis and namespace it shall have; None for the default's.
    """
    of_loop = _loops.setdefault(asyncio.get_running_loop(), {})
    options = _chosen() if twin is None else (twin.address.url, twin.keys.namespace, twin.events_keep)
    if options not in of_loop:
        url, namespace, keep = options
        of_loop[options] = AsyncConnection(url, namespace=namespace, events_keep=keep)
    return of_loop[options]


async def aclose() -> None:
    """Close the running event loop's connections, before a short loop ends; later use makes new ones."""
    for connection in _loops.pop(asyncio.get_running_loop(), {}).values():
        await connection.close()


def _chosen() -> _Options:
    if _options is None:
        configure()
    assert _options is not None
    return _options


def _forget() -> None:
    # A forked child must not share its parent's sockets, nor wait for a thread that it does not have.
    global _connection, _lock
    _connection, _lock = None, threading.Lock()
    _loops.clear()


os.register_at_fork(after_in_child=_forget)
