"""Bodies that take longer than leases: leases are kept whatever the bodies do."""

from __future__ import annotations

from collections.abc import Callable

from callboard.records.state import State
from tests.support.board import Board
from tests.support.ledger import Ledger
from tests.support.waiting import wait_until
from tests.support.worker_process import ServiceProcess

StartWorker = Callable[..., ServiceProcess]

LEASE_SECONDS = 1.5


def test_slots_full_for_three_lease_times(worker: StartWorker, board: Board, ledger: Ledger) -> None:
    """Two workers with every slot taken, tasks claimed ahead and more that wait: each body runs once."""
    crew = [worker(slots=4, lease=LEASE_SECONDS).ready() for _ in range(2)]
    board.await_end(board.submit("threads.quick", 400), 30)
    tasks = [
        task
        for queue in ("threads", "boxes")
        for task in board.submit(f"{queue}.nap", 4, payload={"seconds": 3 * LEASE_SECONDS})
    ]
    tasks += board.submit("threads.quick", 40) + board.submit("boxes.quick", 10)
    tasks += board.submit("loop.nap", 100, payload={"seconds": 3 * LEASE_SECONDS})
    records = board.await_end(tasks, 60)
    assert ledger.repeated() == {}
    assert {record.state for record in records} == {State.COMPLETED}
    assert {len(record.attempts) for record in records} == {1}
    # What was claimed ahead goes back unstarted when the slots stay full.
    assert {stop.cause for record in records for stop in record.interruptions} <= {"no free slot"}
    assert all(process.alive for process in crew)
    assert board.faults() == []


def test_a_body_that_holds_the_interpreter_for_two_leases(
    worker: StartWorker, board: Board, ledger: Ledger
) -> None:
    """In a process slot it holds its child's interpreter, and the worker goes on renewing."""
    busy = worker(slots=2, lease=LEASE_SECONDS).ready()
    tasks = board.submit("boxes.hold", 2, payload={"seconds": 2 * LEASE_SECONDS})
    wait_until(lambda: len(ledger.running()) == 2, 20, "two bodies")
    worker(slots=2, lease=LEASE_SECONDS).ready()
    records = board.await_end(tasks, 30)
    assert ledger.repeated() == {}
    assert {(record.worker, record.state) for record in records} == {(busy.id, State.COMPLETED)}
    assert {len(record.attempts) for record in records} == {1}
    assert {record.interruptions for record in records} == {()}
    assert board.faults() == []


def test_in_a_thread_it_is_rescued_once_and_its_late_end_is_refused(
    worker: StartWorker, board: Board, ledger: Ledger
) -> None:
    """Nothing in the worker can run beside it, so it looks dead; but no outcome is recorded twice."""
    stuck = worker(slots=2, lease=LEASE_SECONDS, WORKER_QUEUES="threads").ready()
    [task] = board.submit("threads.hold", payload={"seconds": 6 * LEASE_SECONDS})
    wait_until(lambda: task in ledger.running(), 20, "the body")
    heir = worker(slots=2, lease=LEASE_SECONDS, WORKER_QUEUES="threads").ready()
    [record] = board.await_end([task], 60)
    assert (record.state, record.worker) == (State.COMPLETED, heir.id)
    assert [attempt.outcome for attempt in record.attempts] == ["lost", "completed"]
    wait_until(lambda: ledger.ends()[task] == 2, 30, "the late end")
    # The worker hears that the task is not its own, and works on.
    wait_until(lambda: "was lost" in stuck.said, 30, "the news")
    assert board.record(task) == record
    board.await_end(board.submit("threads.quick", 20), 20)
    assert ledger.starts()[task] == 2
    assert stuck.alive
    assert board.faults() == []
