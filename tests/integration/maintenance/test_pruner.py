"""Finished tasks leave by age, count and memory; work that is not finished never does."""

from __future__ import annotations

from collections.abc import Callable

from callboard.maintenance.policy import Policy
from callboard.maintenance.pruner import STEP, Pruned, Pruner, prune, strip
from callboard.metrics import Metrics
from callboard.settings import load
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.operation import Command
from tests.support import tasks
from tests.support.waiting import wait_until

HOUR = 3600 * 1000


def age(connection: Connection, state: str, by_ms: int, queue: str = "q") -> None:
    """Make every task of `state` finish `by_ms` earlier."""
    names = connection.keys.queue(queue)
    for task in connection.execute(Command("ZRANGE", names.state(state), 0, -1)):
        connection.execute(Command("ZINCRBY", names.state(state), -by_ms, task))


def pruned(metrics: Metrics, reason: str) -> float:
    value = metrics.registry.get_sample_value(
        "callboard_tasks_pruned_total", {"queue": "q", "reason": reason}
    )
    return value or 0.0


def record_keys(connection: Connection) -> int:
    found: list[bytes] = connection.execute(Command("KEYS", connection.keys.queue("q").prefix + "[imhl]:*"))
    return len(found)


def everything(connection: Connection, policy: Policy, metrics: Metrics) -> int:
    pruner, total = Pruner(lambda _queue: policy, metrics), 0
    while (done := pruner.run_once(connection, "q")).dropped:
        total += sum(done.dropped.values())
    return total


def test_the_settings_are_the_policy() -> None:
    policy = Policy.of(
        load({"CALLBOARD_RETENTION_FAILED_DAYS": "0.5", "CALLBOARD_WORKER_LEASE_SECONDS": "3"})
    )
    assert policy == Policy(lease_seconds=3, failed_ms=12 * HOUR)


def test_old_ones_go_records_and_all(connection: Connection) -> None:
    metrics = Metrics()
    tasks.finish(connection, "q", tasks.run(connection, "q", 3))
    age(connection, "completed", 8 * 24 * HOUR)
    tasks.finish(connection, "q", tasks.run(connection, "q", 2))
    tasks.fail(connection, "q", tasks.run(connection, "q", 2))
    age(connection, "failed", 8 * 24 * HOUR)
    assert everything(connection, Policy(), metrics) == 3
    assert tasks.size(connection, "q", "completed") == 2
    assert tasks.size(connection, "q", "failed") == 2
    assert tasks.size(connection, "q", "all") == 4
    assert record_keys(connection) == 4 * 3
    assert pruned(metrics, "age") == 3
    age(connection, "failed", 23 * 24 * HOUR)
    assert everything(connection, Policy(), metrics) == 2


def test_cancelled_ones_are_kept_like_completed_ones(connection: Connection) -> None:
    names = connection.keys.queue("q")
    [local] = tasks.accept(connection, "q")
    tasks.cancel(connection, "q", local)
    age(connection, "cancelled", 8 * 24 * HOUR)
    assert everything(connection, Policy(), Metrics()) == 1
    assert connection.execute(Command("EXISTS", names.mutable(local))) == 0


def test_the_oldest_go_when_there_are_too_many(connection: Connection) -> None:
    metrics = Metrics()
    claims = tasks.run(connection, "q", 10)
    for claim in claims:
        tasks.finish(connection, "q", [claim])
    age(connection, "completed", HOUR)
    names = connection.keys.queue("q")
    order = [task.decode() for task in connection.execute(Command("ZRANGE", names.state("completed"), 0, -1))]
    assert everything(connection, Policy(completed_count=4), metrics) == 6
    left = [task.decode() for task in connection.execute(Command("ZRANGE", names.state("completed"), 0, -1))]
    assert left == order[6:]
    assert pruned(metrics, "count") == 6


def test_work_that_is_not_finished_stays_whatever_the_policy(connection: Connection) -> None:
    tasks.run(connection, "q", 2)
    tasks.accept(connection, "q", 2)
    tasks.accept(connection, "q", 2, delay_ms=60_000)
    nothing = Policy(completed_ms=0, failed_ms=0, completed_count=0, failed_count=0, memory_share=0)
    assert everything(connection, nothing, Metrics()) == 0
    assert [tasks.size(connection, "q", state) for state in ("pending", "queued", "running")] == [2, 2, 2]


def test_a_call_drops_at_most_200(connection: Connection) -> None:
    tasks.finish(connection, "q", tasks.run(connection, "q", STEP + 20))
    assert connection.run(prune(connection.keys, "q", "completed", keep=0)) == (STEP, 20)
    assert connection.run(prune(connection.keys, "q", "completed", keep=0)) == (20, 0)


def test_logs_and_results_go_before_records(connection: Connection) -> None:
    claims = tasks.run(connection, "q", 5)
    tasks.finish(connection, "q", claims[:3], result=b'"x"')
    age(connection, "completed", 2 * HOUR)
    tasks.finish(connection, "q", claims[3:], result=b'"x"')
    # Those that finished in the same millisecond go together, so the limit is no exact number.
    first = connection.run(strip(connection.keys, "q", limit=2))
    assert first in (2, 3)
    assert connection.run(strip(connection.keys, "q")) == 3 - first
    assert connection.run(strip(connection.keys, "q")) == 0
    results = [tasks.record(connection, "q", local).result for local, _ in claims]
    assert results == [None, None, None, "x", "x"]
    assert tasks.size(connection, "q", "completed") == 5


def test_memory_above_the_mark_frees_the_oldest_until_below(
    start_server: Callable[..., EmbeddedServer], namespace: str
) -> None:
    server = start_server()
    connection, metrics = Connection(server.url, namespace=namespace), Metrics()
    tasks.finish(connection, "q", tasks.run(connection, "q", 400), result=b'"' + b"x" * 20_000 + b'"')
    age(connection, "completed", 2 * HOUR)
    recent = tasks.run(connection, "q", 40)
    tasks.finish(connection, "q", recent, result=b'"' + b"x" * 20_000 + b'"')
    tasks.fail(connection, "q", tasks.run(connection, "q", 5))
    live = tasks.accept(connection, "q", 5)

    used = connection.execute(Command("INFO", "memory"))["used_memory"]
    connection.execute(Command("CONFIG", "SET", "maxmemory", int(used / 0.9)))
    pruner = Pruner(lambda _queue: Policy(), metrics)

    def below() -> bool:
        pruner.run_once(connection, "q")
        now = connection.execute(Command("INFO", "memory"))
        return now["used_memory"] <= 0.6 * now["maxmemory"]

    wait_until(below, timeout=60, description="memory below the mark", poll=0.2)
    # The bulk was in old results: they went, and no record had to.
    assert tasks.size(connection, "q", "completed") == 440
    assert tasks.record(connection, "q", recent[-1][0]).result is not None

    def squeezed() -> bool:
        used = connection.execute(Command("INFO", "memory"))["used_memory"]
        connection.execute(Command("CONFIG", "SET", "maxmemory", int(used / 0.62)))
        pruner.run_once(connection, "q")
        return pruned(metrics, "memory") >= 1

    wait_until(squeezed, timeout=60, description="records to go too", poll=0.2)
    assert tasks.size(connection, "q", "completed") < 440
    assert tasks.record(connection, "q", recent[-1][0]).result is not None, (
        "the newest went before the oldest"
    )
    assert tasks.size(connection, "q", "failed") == 5
    assert tasks.record(connection, "q", live[0]).state == "queued"
    connection.close()


def test_pruning_works_where_every_write_is_refused(
    start_server: Callable[..., EmbeddedServer], namespace: str
) -> None:
    server = start_server()
    connection = Connection(server.url, namespace=namespace)
    tasks.finish(connection, "q", tasks.run(connection, "q", 10))
    age(connection, "completed", 2 * HOUR)
    connection.execute(Command("CONFIG", "SET", "maxmemory", "1mb"))
    pruner = Pruner(lambda _queue: Policy(), Metrics())
    wait_until(lambda: pruner.run_once(connection, "q").stripped, description="results to go")
    wait_until(lambda: pruner.run_once(connection, "q").dropped.get("memory"), description="records to go")
    connection.close()


def test_again_soon_after_a_full_run_and_after_a_new_reading_of_memory() -> None:
    assert Pruned(more=True).again_seconds == 0.05
    assert Pruned(stripped=3).again_seconds == 2
    assert Pruned({"memory": 3}).again_seconds == 2
    assert Pruned({"age": 3}).again_seconds is None
