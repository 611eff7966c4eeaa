"""TLS and a user who may touch nothing but the namespace: what docs/operations.md tells people to set up."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from callboard import control, inspector
from callboard.catalog import timetable
from callboard.catalog.schedule import Schedule
from callboard.errors import StoreUnfit
from callboard.handle import TaskHandle
from callboard.records.state import State
from callboard.storage.connection import Connection
from callboard.storage.operation import Command
from tests.support.board import Board
from tests.support.cluster_servers import Node
from tests.support.ledger import VARIABLE, Ledger
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from tests.support.worker_process import BODIES, ROOT, ServiceProcess

Services = Callable[..., ServiceProcess]

NAMESPACE = "cb"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1, signed by itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine to make a certificate with")
    crt, key = tmp_path / "server.crt", tmp_path / "server.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", crt],
        check=True, capture_output=True,
    )  # fmt: skip
    return crt, key


@pytest.fixture
def tls_port() -> int:
    return free_port()


@pytest.fixture
def node(tmp_path: Path, tls_port: int, certificate: tuple[Path, Path]) -> Iterator[Node]:
    """A server with a port for TLS beside the plain one, and a user as the docs have it."""
    crt, key = certificate
    tls = {
        "tls-port": tls_port, "tls-cert-file": crt, "tls-key-file": key, "tls-ca-cert-file": crt,
        "tls-auth-clients": "no",
    }  # fmt: skip
    with Node(tmp_path / "redis", tls) as made:
        rules = re.search(r"ACL SETUSER callboard (.+)", (ROOT / "docs/operations.md").read_text("utf-8"))
        assert rules is not None
        made.client.execute_command("ACL", "SETUSER", "callboard", *rules.group(1).split())
        # Nobody else gets in any more.
        made.client.execute_command("ACL", "SETUSER", "default", "resetpass", ">other")
        yield made


def test_everything_over_tls_as_a_restricted_user(
    node: Node, tls_port: int, certificate: tuple[Path, Path], services: Services, ledger: Ledger
) -> None:
    """Worker, scheduler and the doors of Python."""
    url = f"rediss://callboard:secret@127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate[0]}"
    connection = Connection(url, namespace=NAMESPACE)
    board = Board(connection)
    settings = {"NAMESPACE": NAMESPACE, "MODULES": BODIES, "WORKER_SLOTS": 4, VARIABLE: ledger.path}
    worker = services("callboard_worker", url, **settings).ready()
    clock = services("callboard_scheduler", url, NAMESPACE=NAMESPACE).ready()
    board.run(timetable.create(board.keys, Schedule(id="each", task="threads.quick", interval_seconds=1)))
    tasks = board.submit("threads.quick", 10) + board.submit("boxes.quick", 5)
    tasks += board.submit("threads.talk", payload={"lines": 5}) + board.submit(
        "threads.quick", 3, delay_ms=300
    )
    board.await_state(tasks, State.COMPLETED)
    assert TaskHandle(board.submit("threads.nap", payload={"seconds": 0.5})[0], connection).result(20) == 0.5
    [sleeper] = board.submit("boxes.nap", payload={"seconds": 60})
    wait_until(lambda: sleeper in ledger.running(), 20, "the sleeper")
    board.cancel(sleeper)
    board.await_state([sleeper], State.CANCELLED, 3)  # heard at once, by the control channel
    board.run(control.retry(board.keys, sleeper))
    board.cancel(sleeper)
    held = board.submit("graves.quick", 3, delay_ms=60_000)
    assert board.run(control.purge(board.keys, "graves", State.PENDING)) == len(held)
    wait_until(lambda: firings(board) >= 2, 20, "two firings")
    assert board.workers() == [worker.id]
    assert board.faults() == []
    for process in (worker, clock):
        assert "NOPERM" not in process.said
        assert "WARNING" not in process.said, process.said
        process.term()
        assert process.wait(20) == 0
    with pytest.raises(StoreUnfit):
        connection.execute(Command("SET", "stranger", "x"))
    connection.close()


def firings(board: Board) -> int:
    found = board.run(inspector.find(board.keys, inspector.TaskFilter(queues=("threads",)), limit=200))
    return sum(task.schedule_id == "each" for task in found.items)


def test_a_wrong_password_and_an_unknown_certificate_are_refused(
    node: Node, tls_port: int, certificate: tuple[Path, Path], services: Services
) -> None:
    wrong = f"rediss://callboard:nonsense@127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate[0]}"
    denied = services("callboard_worker", wrong, NAMESPACE=NAMESPACE)
    assert denied.wait(30) == 4
    assert "Redis refuses this user" in denied.said
    assert "nonsense" not in denied.said
    with redis.Redis(port=tls_port, ssl=True) as stranger, pytest.raises(redis.ConnectionError):
        stranger.ping()
