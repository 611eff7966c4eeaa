"""A worker dies without a word: its tasks run again soon, and whoever kills workers is found out."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from callboard.records.state import State
from tests.support.board import Board
from tests.support.ledger import Ledger
from tests.support.waiting import wait_until
from tests.support.worker_process import ServiceProcess, children_of, lives

StartWorker = Callable[..., ServiceProcess]
Supervise = Callable[..., None]

#: The promise for a worker that was killed, with the default lease of 20 s.
AGAIN_SECONDS = 30.0


@pytest.mark.parametrize("heir", ["beside it", "in its place"])
def test_tasks_of_a_killed_worker_run_again_within_30_seconds(
    heir: str, worker: StartWorker, board: Board, ledger: Ledger
) -> None:
    """With a second worker that was there all along, and with one that only starts when the first is dead."""
    victim = worker(slots=4).ready()
    tasks = board.submit("boxes.nap", 2, payload={"seconds": 4}) + board.submit(
        "threads.nap", 2, payload={"seconds": 4}
    )
    wait_until(lambda: len(ledger.starts()) == 4, 30, "four bodies")
    other = worker(slots=4).ready() if heir == "beside it" else None
    if other is not None:
        # It must not simply have been idle too short a time to judge.
        tasks_of_victim = [board.record(task).worker for task in tasks]
        assert set(tasks_of_victim) == {victim.id}
    killed_at = time.monotonic()
    victim.kill()
    if other is None:
        other = worker(slots=4)
    wait_until(lambda: sum(ledger.starts().values()) == 8, 60, "the second run of each")
    waited = max(entry.at for entry in ledger.entries() if entry.mark == "S") - killed_at
    print(f"killed, {heir}: all run again after {waited:.1f} s")
    for record in board.await_end(tasks, 30):
        assert record.state is State.COMPLETED
        assert [attempt.outcome for attempt in record.attempts] == ["lost", "completed"]
        assert record.attempts[0].worker == victim.id
        assert record.worker == other.id
    assert waited <= AGAIN_SECONDS
    assert board.faults() == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("weapon", ["threads.murder", "boxes.murder"])
def test_a_task_that_kills_its_worker_three_times_is_quarantined(
    weapon: str, worker: StartWorker, board: Board, ledger: Ledger, supervise: Supervise
) -> None:
    """It fails with its cause; its neighbours finish, those too that died with the workers that it killed."""
    supervise(lambda: worker(slots=4, lease=1.0))
    beside = [
        board.submit("threads.nap", payload={"seconds": 4}),
        board.submit("boxes.nap", payload={"seconds": 4}),
    ]
    murderer = board.submit(weapon)
    behind = board.submit("threads.quick", 20) + board.submit("boxes.quick", 20)
    [failed] = board.await_end(murderer, 60)
    assert failed.state is State.FAILED
    assert failed.reason == "quarantined"
    assert failed.error is not None
    assert "vanished" in failed.error["message"]
    assert [attempt.outcome for attempt in failed.attempts] == ["lost"] * 3
    assert ledger.starts()[failed.id] == 3
    others = board.await_end(beside[0] + beside[1] + behind, 60)
    assert {record.state for record in others} == {State.COMPLETED}
    assert board.faults() == []
    lost = [sum(attempt.outcome == "lost" for attempt in record.attempts) for record in others]
    print(f"{weapon}: quarantined after 3 workers; its neighbours died with it {max(lost)} times at most")


def test_nothing_outlives_its_runner(worker: StartWorker, board: Board, ledger: Ledger) -> None:
    """SIGKILL of the runner ends its children and what those have started, long before the lease runs out."""
    victim = worker(slots=6).ready()
    bodies = ["boxes.nap", "boxes.hold", *["boxes.family"] * 4]
    for name in bodies:
        board.submit(name, payload={"seconds": 300})
    # Itself, the forkserver and the children: six bodies, four of which have started a program.
    wait_until(lambda: len(ledger.starts()) == 6 and len(children_of(victim.pid)) >= 11, 30, "ten processes")
    family = children_of(victim.pid)
    assert {entry.pid for entry in ledger.entries()} <= family
    killed_at = time.monotonic()
    victim.kill()
    wait_until(lambda: not any(map(lives, family)), AGAIN_SECONDS / 3, "the end of its children")
    waited = time.monotonic() - killed_at
    print(f"{len(family)} processes below the runner ended {waited:.2f} s after it")
