"""The clock of Redis steps, as after a failover to a machine with another time: no lease was truly missed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from callboard.records.state import State
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.operation import Command
from tests.support.board import Board
from tests.support.ledger import Ledger
from tests.support.redis_server import new_server
from tests.support.waiting import wait_until
from tests.support.worker_process import ServiceProcess

StartWorker = Callable[..., ServiceProcess]
Step = Callable[[float], None]

LEASE_SECONDS = 2.0


def faketime() -> Path:
    """The library that gives a process another clock."""
    found = [path for root in ("/usr/lib", "/usr/local/lib") for path in Path(root).rglob("libfaketime.so.1")]
    if not found:
        pytest.skip("no libfaketime on this machine (scripts/install-services.sh brings it)")
    return found[0]


@pytest.fixture
def clock_file(tmp_path: Path) -> Path:
    """How far the server's clock is off, as libfaketime reads it at every look."""
    file = tmp_path / "faketime"
    file.write_text("+0", encoding="ascii")
    return file


@pytest.fixture
def server(tmp_path: Path, clock_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedServer]:
    """The wheel's Valkey with a clock of its own: Debian's Redis allocates by jemalloc, which reads the clock
    before libfaketime is ready for it."""
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(faketime()))
        patch.setenv("FAKETIME_TIMESTAMP_FILE", str(clock_file))
        patch.setenv("FAKETIME_NO_CACHE", "1")
        patch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        made = new_server(tmp_path / "redis", "valkey").start()
    yield made
    made.stop()


@pytest.fixture
def step(clock_file: Path, board: Board) -> Step:
    """Sets the server's clock to ours and so many seconds more."""

    def change(seconds: float) -> None:
        before = now(board)
        # In one go: what the server reads is whole.
        fresh = clock_file.with_suffix(".new")
        fresh.write_text(f"{seconds:+}", encoding="ascii")
        fresh.replace(clock_file)
        wait_until(lambda: abs(now(board) - time.time() - seconds) < 0.5, 20, "libfaketime to take the step")
        assert abs(now(board) - before) > 1.0

    return change


def now(board: Board) -> float:
    seconds, microseconds = board.connection.execute(Command("TIME"))
    return float(seconds) + float(microseconds) / 1e6


@pytest.mark.parametrize(
    "steps",
    [[3600.0], [4.0, 8.0, 12.0], [3600.0, 0.0]],
    ids=["an hour ahead", "lease by lease", "ahead and back"],
)
def test_a_step_of_the_clock_doubles_nothing_and_costs_nothing(
    steps: list[float], step: Step, worker: StartWorker, board: Board, ledger: Ledger
) -> None:
    """Eight tasks run while the clock steps, and a second worker stands by to rescue them."""
    busy = worker(slots=8, lease=LEASE_SECONDS).ready()
    running = [
        task
        for queue in ("threads", "boxes")
        for task in board.submit(f"{queue}.nap", 4, payload={"seconds": 4 * LEASE_SECONDS})
    ]
    wait_until(lambda: len(ledger.starts()) == 8, 30, "eight bodies")
    idle = worker(slots=8, lease=LEASE_SECONDS).ready()
    for seconds in steps:
        step(seconds)
        # Work goes on at once.
        board.await_end(board.submit("threads.quick", 5) + board.submit("boxes.quick", 5), 30)
    records = board.await_end(running, 30)
    assert {record.worker for record in records} == {busy.id}
    assert ledger.repeated() == {}
    assert {record.state for record in records} == {State.COMPLETED}
    assert {len(record.attempts) for record in records} == {1}
    assert {record.interruptions for record in records} == {()}
    assert board.faults() == []
    # Who is really dead is found out all the same.
    [task] = board.submit("boxes.nap", payload={"seconds": 5.0})
    wait_until(lambda: task in ledger.running(), 30, "the body")
    victim, heir = (busy, idle) if board.record(task).worker == busy.id else (idle, busy)
    killed = time.monotonic()
    victim.kill()
    [record] = board.await_end([task], 30)
    assert [attempt.outcome for attempt in record.attempts] == ["lost", "completed"]
    assert record.worker == heir.id
    print(f"steps of {steps}: 0 doubled; a dead worker's task ended {time.monotonic() - killed:.1f} s later")
