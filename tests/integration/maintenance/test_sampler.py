"""Figures and statistics of a queue, from what its scripts have counted."""

from __future__ import annotations

from callboard.maintenance.sampler import Sampler, figures, statistics
from callboard.metrics import QueueFigures
from callboard.storage.connection import Connection
from callboard.storage.operation import Command
from tests.support import tasks
from tests.support.waiting import wait_until


def test_an_unknown_queue_is_all_zeros(connection: Connection) -> None:
    found = Sampler().run_once(connection, "q")
    assert set(found.tasks.values()) == {0}
    assert found.oldest_queued_age_seconds is None
    assert found.mean_run_seconds is None
    assert connection.run(statistics(connection.keys, "q")).run_ms is None


def test_figures_count_every_state(connection: Connection) -> None:
    tasks.finish(connection, "q", tasks.run(connection, "q", 2))
    tasks.fail(connection, "q", tasks.run(connection, "q"))
    tasks.run(connection, "q", 3)
    tasks.cancel(connection, "q", tasks.accept(connection, "q")[0])
    tasks.accept(connection, "q", 4)
    tasks.accept(connection, "q", 5, delay_ms=60_000)
    found = connection.run(figures(connection.keys, "q", 30.0))
    assert found.tasks == {
        "pending": 5, "queued": 4, "running": 3, "completed": 2, "failed": 1, "cancelled": 1,
    }  # fmt: skip
    assert found.oldest_queued_age_seconds is not None
    assert 0 <= found.oldest_queued_age_seconds < 60
    assert found.mean_run_seconds is not None
    assert found.wait_objective_seconds == 30


def test_due_tasks_that_nobody_promoted_count_as_demand(connection: Connection) -> None:
    tasks.accept(connection, "q", 3, delay_ms=1)
    tasks.accept(connection, "q", delay_ms=60_000)

    def due() -> QueueFigures | None:
        found = connection.run(figures(connection.keys, "q"))
        return found if found.due_pending == 3 else None

    found = wait_until(due, description="three due tasks")
    assert found is not None
    assert found.demand_slots == 3


def test_statistics_follow_the_runs(connection: Connection) -> None:
    claims = tasks.run(connection, "q", 20)
    tasks.finish(connection, "q", claims[:18])
    tasks.fail(connection, "q", claims[18:])
    found = connection.run(statistics(connection.keys, "q"))
    assert (found.finished, found.failed) == (20, 2)
    assert found.run_ms is not None
    assert found.wait_ms is not None
    assert 0 <= found.run_ms.p50 <= found.run_ms.p95 <= found.run_ms.p99
    assert sum(minute.finished for minute in found.minutes) == 20
    assert found.per_second > 0


def test_minutes_outside_the_window_do_not_count(connection: Connection) -> None:
    tasks.finish(connection, "q", tasks.run(connection, "q"))
    runs = connection.keys.queue("q").runs
    [minute] = {int(name.split(b":")[0]) for name in connection.execute(Command("HKEYS", runs))}
    connection.execute(
        Command("HSET", runs, f"{minute - 31}:n", 100, f"{minute - 31}:ms", 1, f"{minute - 5}:n", 7)
    )
    assert connection.run(statistics(connection.keys, "q")).finished == 8
    assert connection.run(statistics(connection.keys, "q", 3)).finished == 1
    assert connection.run(figures(connection.keys, "q")).mean_run_seconds is not None
