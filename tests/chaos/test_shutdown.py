"""Workers are told to go: nothing is lost, nothing fails, no attempt is spent."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from callboard.records.state import State
from tests.support.board import Board
from tests.support.ledger import Ledger
from tests.support.waiting import wait_until
from tests.support.worker_process import ServiceProcess

StartWorker = Callable[..., ServiceProcess]


def claim_ahead(board: Board, worker: ServiceProcess) -> None:
    """Teach `worker` that bodies are short, so that it holds more than it has slots for.

    And have its children born: no body of a test is to wait for that while others run.
    """
    board.await_end(board.submit("boxes.nap", 8, payload={"seconds": 0.5}), 60)
    board.await_end(board.submit("threads.quick", 400), 60)


@pytest.mark.parametrize("drain", [60, 1], ids=["in-time", "too-long"])
def test_sigterm_with_eight_long_and_eight_claimed_tasks(
    drain: int, worker: StartWorker, board: Board, ledger: Ledger
) -> None:
    """The claimed go back at once; the running end in time, or their bodies are stopped and they go back."""
    nap = {"seconds": 8}
    first = worker(slots=8, WORKER_DRAIN_SECONDS=drain).ready()
    claim_ahead(board, first)
    tasks = board.submit("threads.nap", 4, payload=nap)
    wait_until(lambda: board.size("threads", State.RUNNING) == 4, 10, "four tasks in threads")
    tasks += board.submit("boxes.nap", 4, payload=nap)
    wait_until(lambda: len(ledger.running()) == 8, 20, "eight bodies")
    tasks += board.submit("threads.nap", 20, payload={"seconds": 0.2})
    claimed = wait_until(lambda: board.size("threads", State.RUNNING) - 4, 10, "tasks claimed ahead")
    assert claimed >= 8
    told = time.monotonic()
    first.term()
    wait_until(lambda: board.size("threads", State.RUNNING) <= 4, 10, "the claimed to be given back")
    given_back = time.monotonic() - told
    assert len(ledger.running()) == 8 or drain == 1, "they were given back only when slots were free"
    status = first.wait(30)
    ended = time.monotonic() - told
    assert status == 0
    # Nobody needs a lease to run out for them.
    left = board.states(tasks)
    assert left["running"] == 0
    assert left == ({"completed": 8, "queued": 20} if drain == 60 else {"queued": 28})
    worker(slots=8).ready()
    records = board.await_end(tasks, 30)
    assert {record.state for record in records} == {State.COMPLETED}
    assert {record.attempt for record in records} == {1}
    assert {len(record.attempts) for record in records} == {1}
    stops = [stop.cause for record in records for stop in record.interruptions]
    assert len(stops) == (claimed if drain == 60 else claimed + 8)
    # On a slow machine some go back for want of a slot before the signal comes.
    assert set(stops) <= {"shutdown", "no free slot"}
    assert sum(count - 1 for count in ledger.starts().values()) == (0 if drain == 60 else 8)
    print(f"{claimed} claimed were given back {given_back:.2f} s after SIGTERM; exit 0 after {ended:.1f} s")
    assert ended < 20.0
    assert board.faults() == []


@pytest.mark.timeout(180)
def test_a_rolling_restart_under_load_fails_no_task(
    worker: StartWorker, board: Board, ledger: Ledger
) -> None:
    """Three workers are replaced one by one, twice, while tasks come in and run."""
    crew = [worker(slots=4).ready() for _ in range(3)]
    tasks: list[str] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.wait(0.05):
            for name in ("threads.quick", "boxes.quick"):
                tasks.extend(board.submit(name, 5))
            for name in ("threads.nap", "boxes.nap", "loop.nap"):
                tasks.extend(board.submit(name, payload={"seconds": 0.3}))

    producer = threading.Thread(target=load)
    producer.start()
    try:
        for _ in range(2):
            for place in range(3):
                old = crew[place]
                crew[place] = worker(slots=4).ready()
                old.term()
                assert old.wait(30) == 0
    finally:
        stop.set()
        producer.join()
    records = board.await_end(tasks, 60)
    assert Counter(str(record.state) for record in records) == {"completed": len(tasks)}
    assert {record.attempt for record in records} == {1}
    assert ledger.repeated() == {}
    interrupted = sum(bool(record.interruptions) for record in records)
    print(f"{len(tasks)} tasks over 6 restarts: none failed; {interrupted} were claimed and given back")
    assert board.faults() == []
