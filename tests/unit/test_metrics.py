from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from callboard import clock
from callboard.metrics import DURATION_BUCKETS, Metrics, QueueFigures, SlotFigures, demand_slots


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    body, content_type = metrics.exposition()
    assert content_type.startswith("text/plain")
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("running", "queued", "due", "mean", "objective", "expected"),
    [
        (0, 0, 0, None, None, 0),
        (3, 0, 0, 10, 60, 3),
        (0, 100, 0, None, 60, 100),
        (0, 100, 0, 5, None, 100),
        (0, 100, 0, 6, 60, 10),
        (2, 90, 10, 6, 60, 12),
        (0, 100, 0, 600, 60, 100),
        # Two short tasks must wake a queue that sleeps at zero.
        (0, 2, 0, 0.001, 3600, 1),
        (0, 1, 0, 0, 60, 1),
        # 10 × 0.3 is 3.0000000000000004 to a computer in a hurry.
        (0, 10, 0, 0.1 + 0.2, 1, 3),
        (0, 5, 0, 1, 0, 5),
    ],
)
def test_demand(
    running: int, queued: int, due: int, mean: float | None, objective: float | None, expected: int
) -> None:
    assert demand_slots(running, queued, due, mean, objective) == expected


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 10**6), st.floats(0.001, 10**6))
def test_demand_lies_between_what_runs_and_everything(
    running: int, waiting: int, mean: float, objective: float
) -> None:
    demand = demand_slots(running, waiting, 0, mean, objective)
    assert running <= demand <= running + waiting
    assert (demand > running) == (waiting > 0)
    assert demand_slots(running, waiting + 1, 0, mean, objective) >= demand


def test_every_metric_of_the_design_has_its_name() -> None:
    metrics = Metrics(process=True)
    metrics.snapshots.show_queues([QueueFigures("q", {"queued": 1}, 2.5, guests=2)])
    metrics.snapshots.show_slots([SlotFigures("q", 1, 4)])
    metrics.tasks_submitted.labels(queue="q", name="n").inc()
    metrics.tasks_finished.labels(queue="q", name="n", outcome="completed").inc()
    metrics.task_wait_seconds.labels(queue="q").observe(0.002)
    metrics.task_run_seconds.labels(queue="q").observe(60)
    metrics.http_requests.labels(route="/v1/tasks", method="POST", status="202").inc()
    metrics.http_request_seconds.labels(route="/v1/tasks", method="POST").observe(0.004)
    metrics.lease_losses.labels(queue="q").inc()
    metrics.redis_errors.inc()
    metrics.tasks_pruned.labels(queue="q", reason="memory").inc(200)
    found = samples(metrics)
    assert found["callboard_tasks", "queue=q", "state=queued"] == 1
    assert found["callboard_tasks", "queue=q", "state=failed"] == 0
    assert found["callboard_oldest_queued_age_seconds", "queue=q"] == 2.5
    assert found["callboard_queue_demand_slots", "queue=q"] == 1
    assert found["callboard_guests", "queue=q"] == 2
    assert found["callboard_slots", "queue=q", "state=busy"] == 1
    assert found["callboard_slots", "queue=q", "state=total"] == 4
    assert found["callboard_tasks_submitted_total", "name=n", "queue=q"] == 1
    assert found["callboard_tasks_finished_total", "name=n", "outcome=completed", "queue=q"] == 1
    assert found["callboard_task_wait_seconds_count", "queue=q"] == 1
    assert found["callboard_task_run_seconds_sum", "queue=q"] == 60
    assert found["callboard_http_requests_total", "method=POST", "route=/v1/tasks", "status=202"] == 1
    assert found["callboard_http_request_seconds_count", "method=POST", "route=/v1/tasks"] == 1
    assert found["callboard_lease_losses_total", "queue=q"] == 1
    assert found[("callboard_redis_errors_total",)] == 1
    assert found["callboard_tasks_pruned_total", "queue=q", "reason=memory"] == 200
    assert ("process_resident_memory_bytes",) in found


def test_a_queue_that_is_gone_leaves_no_series() -> None:
    metrics = Metrics()
    metrics.snapshots.show_queues([QueueFigures("old", {}), QueueFigures("new", {})])
    metrics.snapshots.show_queues([QueueFigures("new", {})])
    assert {key[1] for key in samples(metrics) if key[0] == "callboard_tasks"} == {"queue=new"}
    assert "callboard_guests" not in {key[0] for key in samples(metrics)}, "nobody has counted them"


def test_stale_queue_figures_become_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    metrics.snapshots.show_queues([QueueFigures("q", {"queued": 5})])
    metrics.snapshots.show_slots([SlotFigures("q", 0, 4)])
    later = clock.monotonic() + metrics.snapshots.max_age_seconds + 1
    monkeypatch.setattr(clock, "monotonic", lambda: later)
    names = {key[0] for key in samples(metrics)}
    assert "callboard_queue_demand_slots" not in names
    assert "callboard_slots" in names


def test_two_sets_of_metrics_do_not_share_numbers() -> None:
    one, other = Metrics(), Metrics()
    one.redis_errors.inc()
    assert samples(other)[("callboard_redis_errors_total",)] == 0


def test_buckets_reach_from_a_millisecond_to_an_hour() -> None:
    assert (DURATION_BUCKETS[0], DURATION_BUCKETS[-1]) == (0.001, 3600)
    assert list(DURATION_BUCKETS) == sorted(set(DURATION_BUCKETS))


def test_open_metrics_is_served_to_who_asks_for_it() -> None:
    body, content_type = Metrics().exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
