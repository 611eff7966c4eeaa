"""Redis reaches its maxmemory: new work is refused, and everything that frees memory goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from callboard import control, inspector
from callboard.errors import StoreFull
from callboard.maintenance.policy import Policy
from callboard.maintenance.pruner import Pruner
from callboard.records.state import State
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.operation import Command
from callboard.submit import Submission, submit
from tests.support.board import Board
from tests.support.ledger import Ledger
from tests.support.served_api import KEY, served_api
from tests.support.waiting import wait_until
from tests.support.worker_process import ServiceProcess

StartWorker = Callable[..., ServiceProcess]

LEASE_SECONDS = 2.0
_BIG = "x" * 200_000


@pytest.fixture
def server(start_server: Callable[..., EmbeddedServer]) -> EmbeddedServer:
    return start_server(config={"maxmemory": "32mb"})


def fill(connection: Connection) -> int:
    """A neighbour on the same Redis takes all that is left, to the last bytes; how many keys it has made."""
    made = 0
    for size in (1_000_000, 50_000, 1_000):
        while True:
            try:
                connection.execute(Command("SET", f"neighbour:{made}", "x" * size))
            except StoreFull:
                break
            made += 1
    return made


def hoard(board: Board) -> None:
    """Submit until new work is refused."""
    for _ in range(500):
        try:
            board.submit("attic.big", payload={"filler": _BIG})
        except StoreFull:
            return
    pytest.fail("100 MB fit into 32 MB")


def clear(connection: Connection, made: int) -> None:
    for number in range(made):
        connection.execute(Command("DEL", f"neighbour:{number}"))


@pytest.mark.timeout(180)
def test_maxmemory(
    server: EmbeddedServer, worker: StartWorker, board: Board, ledger: Ledger, namespace: str, tmp_path: Path
) -> None:
    """Submits get StoreFull, or 507 over HTTP; what was accepted runs to its end, with every kind of end."""
    keys, connection = board.keys, board.connection
    # What has ended stays until it is looked at; the pruner has its turn below.
    settings = {"lease": LEASE_SECONDS, "RETENTION_MEMORY_PERCENT": 100}
    first = worker(slots=8, **settings).ready()
    history = board.submit("threads.quick", 300)
    board.await_end(history, 30)
    long = [
        task
        for queue in ("threads", "boxes")
        for task in board.submit(f"{queue}.nap", 2, payload={"seconds": 5 * LEASE_SECONDS})
    ]
    [stopped] = board.submit("boxes.nap", payload={"seconds": 300})
    wait_until(lambda: len(ledger.running()) == 5, 20, "five bodies")
    delayed = board.submit("threads.quick", 10, delay_ms=4_000)
    retried = board.submit("threads.fail", 3, payload={"times": 1}, delay_ms=4_000)
    failed = board.submit("threads.discard", 3, delay_ms=4_000)
    talkers = board.submit("threads.talk", 2, payload={"lines": 50}, delay_ms=4_000)
    waiting = board.submit("graves.nap", 20, payload={"seconds": 0}, delay_ms=3_600_000)

    hoard(board)
    made = fill(connection)
    headers = {"Authorization": f"Bearer {KEY}"}
    with pytest.raises(StoreFull):
        connection.execute(Command("SET", "neighbour:more", _BIG))
    with (
        served_api(server.url, namespace, tmp_path / "api.log") as url,
        httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30) as http,
    ):
        refused = http.post("/v1/tasks", json={"name": "threads.quick", "payload": {}})
        assert refused.status_code == 507, refused.text
        assert refused.json()["code"] == "store-full"
        # What frees memory is not refused.
        assert http.post(f"/v1/tasks/{waiting[0]}/cancel").json()["state"] == "cancelled"
        assert http.delete(f"/v1/tasks/{waiting[0]}").status_code == 204
        assert http.delete(f"/v1/tasks/{history[-1]}").status_code == 204

    # A worker may start now, and the other one lose nothing.
    second = worker(slots=4, **settings).ready()
    for record in board.await_end(long + delayed + retried + failed + talkers, 60):
        assert record.state is (State.FAILED if record.id in failed else State.COMPLETED), record
        assert record.interruptions == ()
        assert record.attempt == (2 if record.id in retried else 1)
    assert board.cancel(stopped) is False
    board.await_state([stopped], State.CANCELLED, 20)
    assert board.cancel(waiting[1])
    assert board.run(control.purge(keys, "graves", State.PENDING)) == 18
    ended = board.size("threads", State.COMPLETED)
    pruned = Pruner(lambda _: Policy(memory_share=0.6)).run_once(connection, "threads")
    assert pruned.dropped["memory"] == ended - board.size("threads", State.COMPLETED) > ended / 4
    assert board.run(inspector.get(keys, history[0])) is None
    assert ledger.repeated() == dict.fromkeys(retried, 2)
    assert first.alive
    assert second.alive
    assert set(board.workers()) == {first.id, second.id}

    clear(connection, made)
    assert board.run(control.purge(keys, "attic", State.QUEUED)) > 0
    fresh = board.prepare("threads.quick", 5)
    wait_until(lambda: accepted(board, fresh), 10, "room for new tasks")
    board.await_end([one.task_id for one in fresh if one.task_id], 20)
    assert board.faults() == []


def accepted(board: Board, submissions: list[Submission]) -> bool:
    return all(answer.problem is None for answer in board.run(submit(board.keys, submissions)))
