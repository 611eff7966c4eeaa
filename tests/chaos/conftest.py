"""What each chaos test starts for itself: a server that may die, workers that may die, a ledger, a proxy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from tests.support.board import Board
from tests.support.ledger import VARIABLE, Ledger
from tests.support.proxy import Proxy
from tests.support.worker_process import BODIES, ServiceProcess

StartServer = Callable[..., EmbeddedServer]
StartWorker = Callable[..., ServiceProcess]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Where the bodies of this test leave their traces."""
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def server(start_server: StartServer) -> EmbeddedServer:
    """A server of this test's own that keeps what it has answered, whatever happens to it."""
    return start_server(persistent=True, config={"appendfsync": "always"})


@pytest.fixture
def proxy(server: EmbeddedServer) -> Iterator[Proxy]:
    """The way to `server` that can be disturbed."""
    assert server.port is not None
    with Proxy(server.port) as made:
        yield made


@pytest.fixture
def board(server: EmbeddedServer, namespace: str) -> Iterator[Board]:
    """The namespace, straight from the server."""
    connection = Connection(server.url, namespace=namespace)
    yield Board(connection)
    connection.close()


@pytest.fixture
def services(tmp_path: Path, namespace: str) -> Iterator[Callable[..., ServiceProcess]]:
    """Starts service processes: `services("callboard_scheduler", url, LOG_LEVEL="debug")`."""
    started: list[ServiceProcess] = []

    def start(module: str, url: str, **settings: object) -> ServiceProcess:
        log = tmp_path / f"{module}-{len(started)}.log"
        started.append(ServiceProcess(module, log, url, namespace, **settings))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def worker(
    services: Callable[..., ServiceProcess], server: EmbeddedServer, ledger: Ledger
) -> Callable[..., ServiceProcess]:
    """Starts workers of the chaos bodies: `worker(url=…, slots=8, lease=2.0, WORKER_DRAIN_SECONDS=5)`."""

    def start(
        url: str | None = None, *, slots: int = 4, lease: float | None = None, **settings: object
    ) -> ServiceProcess:
        if lease is not None:
            settings["WORKER_LEASE_SECONDS"] = lease
        return services(
            "callboard_worker",
            url or server.url,
            **{"MODULES": BODIES, "WORKER_SLOTS": slots, VARIABLE: ledger.path, **settings},
        )

    return start


@pytest.fixture
def supervise() -> Iterator[Callable[..., None]]:
    """Keeps so many workers alive: `supervise(start, copies=2)`. What dies is started again at once."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def keep(start: Callable[[], ServiceProcess]) -> None:
        process = start()
        while not stop.wait(0.05):
            if not process.alive:
                process = start()

    def begin(start: Callable[[], ServiceProcess], *, copies: int = 1) -> None:
        for _ in range(copies):
            threads.append(threading.Thread(target=keep, args=(start,), daemon=True))
            threads[-1].start()

    yield begin
    stop.set()
    for thread in threads:
        thread.join()
