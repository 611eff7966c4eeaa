"""Another weight for a fairness key: its backlog takes turns by it, in the order that it had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from callboard import control
from callboard.broker.reweigh import LOOK
from callboard.errors import Invalid, StoreFull
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from tests.support.scripted_queue import NewTask, ScriptedQueue, operation


def add(queue: ScriptedQueue, key: str, count: int, **options: float) -> list[str]:
    ids = [f"{key}-{number:04}" for number in range(count)]
    for start in range(0, count, 100):
        queue.submit(*(NewTask(id, key=key, **options) for id in ids[start : start + 100]))  # type: ignore[arg-type]
    return ids


def serve(queue: ScriptedQueue, count: int) -> list[str]:
    served = []
    for _ in range(count):
        [(id, token)] = queue.claim()
        assert queue.complete(id, token) == "ok"
        served.append(id)
    return served


def reweigh(queue: ScriptedQueue, key: str, weight: float) -> int:
    return queue.drive(control.reweigh(queue.connection.keys, "q", key, weight))


def shares(served: list[str]) -> Counter[str]:
    return Counter(id.partition("-")[0] for id in served)


@pytest.mark.parametrize(("before", "after", "expected"), [(1, 3, 75), (3, 1, 50), (1, 0.25, 20)])
def test_a_backlog_takes_turns_by_its_new_weight(
    queue: ScriptedQueue, before: float, after: float, expected: int
) -> None:
    ids = add(queue, "a", LOOK + 150, weight=before)
    add(queue, "b", 300)
    assert reweigh(queue, "a", after) == len(ids)
    served = serve(queue, 100)
    assert shares(served)["a"] == pytest.approx(expected, abs=1)
    assert [id for id in served if id.startswith("a")] == ids[: shares(served)["a"]], "in their order"
    # Those that come now are behind them, not beside them.
    queue.submit(NewTask("a-late", key="a", weight=after))
    assert queue.look().ordered("queued").index("a-late") > queue.look().ordered("queued").index(ids[-1])


def test_what_was_served_counts_and_what_came_back_keeps_its_place(queue: ScriptedQueue) -> None:
    add(queue, "a", 20)
    add(queue, "b", 40)
    [(id, token)] = queue.claim()
    assert id == "a-0000"
    serve(queue, 9)
    assert queue.turn(0, operation("release", id, token, "shutdown")).answers == ["ok"]
    assert reweigh(queue, "a", 3) == 16
    served = serve(queue, 41)
    assert served[0] == "a-0000"
    # Of the next forty, not more than its share: the old turns are not given once more.
    assert shares(served[1:13])["a"] == pytest.approx(9, abs=1)


def test_delayed_and_running_ones_have_it_when_they_enter(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("a-delayed", key="a", delay_ms=1000), NewTask("a-runs", key="a"))
    [(id, token)] = queue.claim()
    assert reweigh(queue, "a", 4) == 2
    assert queue.retry_later(id, token, 1000) == "ok"
    assert {id: record.mutable.weight for id, record in queue.look().records.items()} == {
        "a-delayed": 4,
        "a-runs": 4,
    }
    queue.clock += 1000
    queue.call("promote")
    tags = sorted(queue.look().sets["queued"].values())
    assert tags[1] - tags[0] == 250


def test_many_tasks_with_one_tag_are_all_looked_at(queue: ScriptedQueue) -> None:
    """Each key's first task has the clock's tag, so a page may end amid thousands of one score."""
    tasks = [NewTask(f"{number:05}", key=f"k{number % 700}") for number in range(1400)]
    for start in range(0, 1400, 100):
        queue.submit(*tasks[start : start + 100])
    assert reweigh(queue, "k699", 2) == 2
    assert reweigh(queue, "nobody", 2) == 0


def test_each_priority_has_a_backlog_of_its_own(queue: ScriptedQueue) -> None:
    for priority in (0, 9):
        queue.submit(*(NewTask(f"a{priority}-{n}", key="a", priority=priority) for n in range(3)))
    before = queue.look().ordered("queued")
    assert reweigh(queue, "a", 10) == 6
    found = queue.look()
    assert found.ordered("queued") == before
    assert [place["a"][0] for place in found.fair.values()] == [300, 300]


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_is_above_zero(queue: ScriptedQueue, weight: float) -> None:
    with pytest.raises(Invalid, match="above 0"):
        reweigh(queue, "a", weight)


def test_at_maxmemory_it_is_refused_whole(
    start_server: Callable[..., EmbeddedServer], namespace: str
) -> None:
    server = start_server(config={"maxmemory": "30mb", "maxmemory-policy": "noeviction"})
    connection = Connection(server.url, namespace=namespace)
    full = ScriptedQueue(connection)
    add(full, "a", 5)
    before = full.look().durable
    connection.client.config_set("maxmemory", 1_000_000)
    with pytest.raises(StoreFull):
        reweigh(full, "a", 2)
    assert full.look().durable == before
    connection.close()
