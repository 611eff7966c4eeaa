from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from callboard import settings
from callboard.catalog.contract import Contract, contract_of
from callboard.catalog.queue import Queue, declared_queues, isolated_queues, queue_named
from callboard.catalog.resolution import resolve_queues, usable_cpus, worker_slots
from callboard.errors import InvalidDeclaration, UnknownQueue

SETTINGS = settings.load({"CALLBOARD_WORKER_SLOTS": "4"})


@pytest.fixture(autouse=True)
def fresh_queues() -> Iterator[None]:
    with isolated_queues():
        yield


def sync_task(name: str, queue: str) -> Contract:
    def body() -> None: ...

    return contract_of(body, name=name, queue=queue)


def async_task(name: str, queue: str) -> Contract:
    async def body() -> None: ...

    return contract_of(body, name=name, queue=queue)


def test_an_undeclared_queue_has_the_defaults() -> None:
    queue = queue_named("anything")
    assert (queue.retries, queue.soft_limit_ms, queue.hard_limit_ms) == (3, 540_000, 600_000)
    assert declared_queues() == {}


def test_declaring_the_same_twice_is_harmless() -> None:
    Queue("reports", slots=2, hard_limit=60)
    Queue("reports", slots=2, hard_limit=60)
    assert declared_queues()["reports"].slots == 2


def test_two_declarations_that_differ_are_refused_with_both_places() -> None:
    Queue("reports", slots=2)
    with pytest.raises(InvalidDeclaration) as caught:
        Queue("reports", slots=3)
    message = str(caught.value)
    assert message.startswith("Queue 'reports' is declared twice and differently")
    assert message.count("test_queue.py:") == 2


def test_a_module_loaded_anew_may_change_its_queue() -> None:
    for slots in (2, 3):
        Queue("reports", slots=slots)
    assert queue_named("reports").slots == 3


@pytest.mark.parametrize(
    ("option", "value"),
    [("isolation", "vm"), ("slots", 0), ("slots", True), ("retries", -1), ("soft_limit", -1), ("lease", 0),
     ("lease", 0.1), ("wait_objective", "60"), ("retention", timedelta(days=9999))],
)  # fmt: skip
def test_a_bad_value_is_refused_with_its_place(option: str, value: Any) -> None:
    with pytest.raises(InvalidDeclaration, match=rf"test_queue\.py:\d+: Queue\('q'\) {option}: expected "):
        Queue("q", **{option: value})
    assert declared_queues() == {}


def test_a_soft_limit_above_the_hard_one_is_refused_unless_it_is_the_default() -> None:
    with pytest.raises(InvalidDeclaration, match="soft_limit"):
        Queue("q", soft_limit=20, hard_limit=10)
    assert Queue("q", hard_limit=10).soft_limit_ms == 10_000


@pytest.mark.parametrize("name", ["", "1st", "a b", "a{b}", "x" * 65, "ü"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidDeclaration, match="cannot name a queue"):
        Queue(name)


def test_isolation_follows_from_the_tasks() -> None:
    found = resolve_queues(
        [sync_task("a", "plain"), async_task("b", "web"), sync_task("c", "mixed"), async_task("d", "mixed")],
        SETTINGS,
    )
    assert {name: queue.isolation for name, queue in found.items()} == {
        "plain": "process", "web": "loop", "mixed": "process",
    }  # fmt: skip
    assert {name: queue.slots for name, queue in found.items()} == {"plain": 4, "web": 1000, "mixed": 4}


def test_a_declared_isolation_wins() -> None:
    Queue("web", isolation="process")
    Queue("cheap", isolation="thread", slots=99)
    found = resolve_queues([async_task("b", "web")], SETTINGS)
    assert found["web"].isolation == "process"
    assert (found["cheap"].isolation, found["cheap"].slots, found["cheap"].tasks) == ("thread", 4, ())


def test_a_sync_function_on_a_loop_stops_the_start_with_both_places() -> None:
    Queue("web", isolation="loop")
    with pytest.raises(InvalidDeclaration) as caught:
        resolve_queues([async_task("good", "web"), sync_task("blocker", "web")], SETTINGS)
    message = str(caught.value)
    assert "'blocker'" in message
    assert message.count("test_queue.py:") == 2


def test_everything_of_a_queue_is_resolved() -> None:
    Queue(
        "q",
        slots=2,
        soft_limit=1,
        hard_limit=2,
        retries=None,
        lease=5,
        wait_objective=60,
        retention=timedelta(days=1),
    )
    [found] = resolve_queues([sync_task("b", "q"), sync_task("a", "q")], SETTINGS).values()
    assert dataclasses.asdict(found) == {
        "name": "q", "isolation": "process", "slots": 2, "soft_limit_ms": 1000, "hard_limit_ms": 2000,
        "retries": None, "lease_ms": 5000, "wait_objective_ms": 60_000, "retention_ms": 86_400_000,
        "tasks": ("a", "b"),
    }  # fmt: skip
    assert resolve_queues([sync_task("a", "other")], SETTINGS)["other"].lease_ms == 20_000


def test_a_worker_serves_what_it_was_told_in_that_order() -> None:
    tasks = [sync_task("a", "one"), sync_task("b", "two"), sync_task("c", "three")]
    assert list(resolve_queues(tasks, SETTINGS, ["three", "one", "three"])) == ["three", "one"]
    told = settings.load({"CALLBOARD_WORKER_QUEUES": "two"})
    assert list(resolve_queues(tasks, told)) == ["two"]
    with pytest.raises(UnknownQueue, match="Did you mean 'three'"):
        resolve_queues(tasks, SETTINGS, ["thre"])


def test_slots_are_the_cpus_that_may_be_used(tmp_path: Path) -> None:
    limit = tmp_path / "cpu.max"
    every = usable_cpus(limit)
    assert every >= 1
    limit.write_text("max 100000\n")
    assert usable_cpus(limit) == every
    limit.write_text("50000 100000\n")
    assert usable_cpus(limit) == 1
    assert worker_slots(SETTINGS) == 4
