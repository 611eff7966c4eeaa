"""Redis is killed again and again under load: nothing is lost, nothing runs twice, nobody is restarted."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest

from callboard.records import ids
from callboard.records.state import TERMINAL
from callboard.storage.embedded import EmbeddedServer
from callboard.submit import Submission
from tests.support.board import Board
from tests.support.ledger import Ledger
from tests.support.waiting import wait_until
from tests.support.worker_process import ServiceProcess

StartWorker = Callable[..., ServiceProcess]

TASKS = 10_000
KILLS = 5
RESUMED_SECONDS = 30.0


@pytest.mark.timeout(300)
def test_redis_killed_five_times_under_ten_thousand_tasks(
    server: EmbeddedServer, worker: StartWorker, board: Board, ledger: Ledger
) -> None:
    """With `appendfsync always`: each task has one outcome, and consumption resumes after each restart.

    Two workers with threads and processes; half of the tasks are submitted while Redis comes and goes.
    """
    workers = [worker(slots=8).ready(), worker(slots=8).ready()]
    tasks = [
        Submission(name=name, queue=queue, payload={"number": number}, task_id=ids.new_id(queue))
        for number in range(TASKS // 10)
        for queue, name in [("threads", "threads.quick")] * 9 + [("boxes", "boxes.quick")]
    ]
    half = TASKS // 2
    accepted = board.send(tasks[:half])
    late: list[str] = []

    def submit_the_rest() -> None:
        for start in range(half, TASKS, 250):
            late.extend(board.send(tasks[start : start + 250], patience=60))

    producer = threading.Thread(target=submit_the_rest)
    producer.start()
    resumed: list[float] = []
    for number in range(1, KILLS + 1):
        await_bodies(ledger, number * TASKS // (KILLS + 2))
        server.kill()
        time.sleep(0.3)  # the outage: workers and API are to meet it
        server.start()
        restarted = time.monotonic()
        # What was claimed before may end at any time; more than both workers hold is new work.
        await_bodies(ledger, min(TASKS, len(ledger.ends()) + 2 * 32))
        resumed.append(time.monotonic() - restarted)
    producer.join()
    records = board.await_end(accepted + late, 120)
    assert len({record.id for record in records}) == TASKS
    assert Counter(str(record.state) for record in records) == {"completed": TASKS}
    assert Counter(record.attempt for record in records) == {1: TASKS}
    for queue in ("threads", "boxes"):
        assert board.size(queue, *TERMINAL) == sum(record.queue == queue for record in records)
    twice = ledger.repeated()
    print(
        f"resumed after {', '.join(f'{seconds:.2f}' for seconds in resumed)} s; "
        f"{len(twice)} bodies ran more than once; longest still stand "
        f"{max(b - a for a, b in pairwise(e.at for e in ledger.entries())):.2f} s"
    )
    assert twice == {}
    assert max(resumed) <= RESUMED_SECONDS
    assert all(process.alive for process in workers)
    assert board.faults() == []


def await_bodies(ledger: Ledger, count: int) -> None:
    """Wait until so many bodies have ended."""
    wait_until(lambda: len(ledger.ends()) >= count, 120, f"{count} bodies", poll=0.02)
