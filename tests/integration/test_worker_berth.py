"""A worker that was told to stop and is killed before it could: its tasks do not pay for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from callboard.catalog import origin
from callboard.records.state import State
from callboard.storage.operation import Command
from tests.support.waiting import wait_until
from tests.support.worker_process import ServiceProcess
from tests.support.workers import BODIES, working


def test_a_kill_in_the_midst_of_a_drain_costs_no_attempt(redis_url: str, tmp_path: Path) -> None:
    """A grace period that was too short, as kubelets, systemd and Docker end it."""
    settings = {"MODULES": BODIES, "WORKER_LEASE_SECONDS": 2, "WORKER_SLOTS": 2}
    with working(redis_url, tmp_path, WORKER_LEASE_SECONDS=2, WORKER_DRAIN_SECONDS=60) as (worker, board):
        [task] = board.submit("box.nap", payload={"seconds": 60}, max_attempts=1)
        board.await_state([task], State.RUNNING)
        keys, name = board.keys, worker.id
        assert board.run(origin.read(keys, name)) is None, "outside a cluster nobody needs a note"
        worker.term()
        note = wait_until(lambda: board.run(origin.read(keys, name)), description="its note")
        assert note is not None
        assert note.draining >= note.since > 0
        worker.kill()
        other = ServiceProcess(
            "callboard_worker", tmp_path / "other.log", redis_url, keys.namespace, **settings
        )
        try:
            other.ready()
            wait_until(lambda: board.record(task).worker == other.id, 30, "the second run")
            record = board.record(task)
            assert [attempt.outcome for attempt in record.attempts] == [None]
            [stop] = record.interruptions
            assert (stop.cause, stop.worker) == ("it was killed while it drained", name)
            assert "vanished (it was killed while it drained)" in other.said
        finally:
            other.close()


def test_a_worker_that_stops_in_order_leaves_no_note(redis_url: str, tmp_path: Path) -> None:
    with working(redis_url, tmp_path, WORKER_DRAIN_SECONDS=0.1) as (worker, board):
        [task] = board.submit("box.nap", payload={"seconds": 60})
        board.await_state([task], State.RUNNING)
        name = worker.id
        worker.term()
        assert worker.wait(30) == 0
        assert board.run(origin.read(board.keys, name)) is None
        assert [stop.cause for stop in board.record(task).interruptions] == ["shutdown"]


@pytest.mark.parametrize("pod", ["web-0", "a.pod-of-an-odd-name"])
def test_a_worker_is_called_after_its_pod(redis_url: str, tmp_path: Path, pod: str) -> None:
    """Its host name may be cut, or the node's."""
    with working(redis_url, tmp_path, CLUSTER_POD=pod) as (worker, board):
        assert worker.id.rpartition("-")[0] == pod
        assert board.workers() == [worker.id]
        assert board.connection.execute(Command("EXISTS", board.keys.origin(worker.id))) == 0
