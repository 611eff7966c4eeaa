"""Due tasks become ready on time, with nobody idle."""

from __future__ import annotations

from callboard.maintenance.loops import Loops
from callboard.maintenance.promoter import STEP, Promoted, promote
from callboard.storage.connection import Connection
from tests.support import tasks
from tests.support.waiting import wait_until


def test_only_what_is_due_moves(connection: Connection) -> None:
    tasks.accept(connection, "q", delay_ms=60_000)
    told = connection.run(promote(connection.keys, "q"))
    assert told.moved == 0
    assert told.next_due_ms is not None
    assert 59_000 < told.next_due_ms <= 60_000
    assert tasks.size(connection, "q", "pending") == 1


def test_a_queue_without_delayed_tasks_waits_for_its_interval(connection: Connection) -> None:
    assert connection.run(promote(connection.keys, "q")) == Promoted(0, None)
    assert Promoted(0, None).again_seconds is None


def test_a_full_step_goes_on_at_once_and_a_near_task_never_spins() -> None:
    assert Promoted(STEP, 5000).again_seconds == 0
    assert Promoted(0, 0).again_seconds == 0.01


def test_a_step_is_bounded(connection: Connection) -> None:
    tasks.accept(connection, "q", STEP + 10, delay_ms=1)
    wait_until(lambda: connection.run(promote(connection.keys, "q")).moved == STEP, description="a full step")
    assert tasks.size(connection, "q", "pending") == 10


def test_delayed_tasks_become_ready_on_time_without_an_idle_worker(connection: Connection) -> None:
    tasks.accept(connection, "q", delay_ms=60_000)  # the loops know the queue, and have nothing to do soon
    loops = Loops(connection, "h1", queues=lambda: ["q"])
    loops.start()
    try:
        wait_until(lambda: loops.ticks > 1, description="a first round")

        def late_by(number: int) -> int:
            [local] = tasks.accept(connection, "q", delay_ms=1500)
            wait_until(lambda: tasks.size(connection, "q", "queued") == number, description="the promotion")
            record = tasks.record(connection, "q", local)
            assert record.queued_at is not None
            assert record.due_at is not None
            assert record.queued_at >= record.due_at
            return record.queued_at - record.due_at

        # It polls once a second and sleeps to the moment from then on; the rest is this machine's load.
        assert any(late_by(number) < 150 for number in (1, 2, 3))
    finally:
        loops.stop()
