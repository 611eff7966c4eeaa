"""The timekeeper fires once, whoever else does, and whatever happens in between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from callboard import clock
from callboard.catalog import timetable
from callboard.catalog.contract import Contract
from callboard.catalog.published import publish
from callboard.catalog.schedule import Schedule
from callboard.catalog.timetable import Entry
from callboard.metrics import Metrics
from callboard.records import store as records
from callboard.records.record import TaskRecord
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.operation import Command
from callboard.submit import SubmitLimits
from callboard_scheduler import timetable as firing
from callboard_scheduler.timekeeper import Timekeeper
from tests.support import tasks
from tests.support.waiting import wait_until


def now_ms(connection: Connection) -> int:
    return connection.run(timetable.tick(connection.keys))[0]


def put(connection: Connection, **options: Any) -> Entry:
    fields = {"id": "s", "task": "a.task", "queue": "q", **options}
    return connection.run(timetable.create(connection.keys, Schedule(**fields)))


def get(connection: Connection, schedule_id: str = "s") -> Entry:
    return connection.run(timetable.get(connection.keys, schedule_id))


def rewind(connection: Connection, by_ms: int) -> Entry:
    """Make the schedule's next firing, already planned, lie in the past."""
    entry = get(connection)
    assert entry.nominal_ms is not None
    moved = connection.run(
        timetable.advance(connection.keys, entry, firing.point(entry, entry.nominal_ms - by_ms))
    )
    assert moved is not None
    # No scheduler expects a pointer to move back: let them look.
    connection.execute(Command("HINCRBY", connection.keys.timetable, "#", 1))
    return moved


def fired(connection: Connection, queue: str = "q") -> list[str]:
    found = connection.execute(Command("ZRANGE", connection.keys.queue(queue).all, 0, -1))
    return [task.decode() for task in found]


def record(connection: Connection, task_id: str) -> TaskRecord:
    found = connection.run(records.fetch(connection.keys, task_id))
    assert found is not None
    return found


@pytest.fixture
def keeper(connection: Connection) -> Timekeeper:
    return Timekeeper(connection, "k", metrics=Metrics())


def test_a_new_schedule_is_planned_and_not_fired(connection: Connection, keeper: Timekeeper) -> None:
    put(connection, interval_seconds=60)
    pause = keeper.tick()
    entry = get(connection)
    assert entry.is_planned
    assert entry.nominal_ms == entry.created_ms + 60_000
    assert 0 < pause <= 1
    assert fired(connection) == []


def test_a_due_firing_is_a_task_with_everything_that_its_schedule_says(
    connection: Connection, keeper: Timekeeper
) -> None:
    contract = Contract("a.task", queue="other", priority=2, retries=6, tags=["contract"])
    connection.run(publish(connection.keys, [contract], ["other"], "w1"))
    at = now_ms(connection) - 5_000
    put(connection, queue="", at=at, payload={"x": "ü"}, tags=["mine"], owner="team")
    keeper.tick()
    assert keeper.tick() == 1
    entry = get(connection)
    assert entry.last_task_id == firing.task_id("other", "s", at)
    task = record(connection, entry.last_task_id)
    assert task.payload == {"x": "ü"}
    assert (task.name, task.queue, task.schedule_id, task.owner) == ("a.task", "other", "s", "team")
    assert (task.priority, task.max_attempts, task.tags) == (2, 7, ("contract", "mine"))
    assert entry.last_fired_ms is not None
    assert (entry.nominal_ms, entry.last_nominal_ms) == (None, at)
    for _ in range(3):
        keeper.tick()
    assert len(fired(connection, "other")) == 1


def test_it_sleeps_to_the_moment(connection: Connection, keeper: Timekeeper) -> None:
    at = now_ms(connection) + 400
    put(connection, at=at)
    deadline = clock.monotonic() + 10
    while True:
        before = now_ms(connection)
        pause = keeper.tick()
        if fired(connection):
            break
        # A few ms for what is rounded. How late this machine wakes us from it is none of its doing.
        assert before + pause * 1000 <= at + 20, "it would sleep past the moment"
        assert clock.monotonic() < deadline
        clock.sleep(pause)
    assert record(connection, f"q_{fired(connection)[0]}").created_at >= at


def test_edits_are_seen_by_the_next_tick(connection: Connection, keeper: Timekeeper) -> None:
    put(connection, interval_seconds=3600)
    keeper.tick()
    rewind(connection, 3_600_500)
    connection.run(timetable.change(connection.keys, replace(get(connection).schedule, paused=True), 1))
    keeper.tick()
    keeper.tick()
    assert fired(connection) == [], "paused before it fired"
    connection.run(timetable.change(connection.keys, replace(get(connection).schedule, paused=False), 2))
    keeper.tick()
    assert fired(connection) == [], "what fell into the pause is not made up for"
    connection.run(timetable.delete(connection.keys, "s"))
    assert keeper.tick() == 1


def test_a_tick_that_died_between_submit_and_pointer_is_completed_not_repeated(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(connection, at=now_ms(connection))
    dying = Timekeeper(connection, "k", metrics=Metrics())
    dying.tick()

    def killed(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(timetable, "advance", killed)
        with pytest.raises(SystemExit):
            dying.tick()
    assert len(fired(connection)) == 1
    assert get(connection).last_fired_ms is None
    Timekeeper(connection, "k", metrics=Metrics()).tick()
    assert len(fired(connection)) == 1, "the same id, so the same task"
    assert get(connection).last_fired_ms is not None


def test_a_firing_whose_task_was_pruned_does_not_fire_again(
    connection: Connection, keeper: Timekeeper
) -> None:
    put(connection, interval_seconds=3600)
    keeper.tick()
    rewind(connection, 3_600_000)
    keeper.tick()
    [local] = fired(connection)
    tasks.finish(connection, "q", tasks.turn(connection, "q", want=1))
    connection.execute(Command("DEL", *(connection.keys.queue("q").mutable(local),)))
    connection.execute(Command("ZREM", connection.keys.queue("q").all, local))
    for keeper_again in (keeper, Timekeeper(connection, "k", metrics=Metrics())):
        keeper_again.tick()
    assert fired(connection) == []


def test_many_schedulers_at_once_fire_each_time_once(redis_url: str, namespace: str) -> None:
    """Ten seconds' worth of missed firings, and new ones, by four schedulers in a race."""
    connection = Connection(redis_url, namespace=namespace)
    keepers = [
        Timekeeper(Connection(redis_url, namespace=namespace), f"k{number}", metrics=Metrics())
        for number in range(4)
    ]
    for number in range(5):
        put(connection, id=f"s{number}", interval_seconds=1, misfire="run_all", jitter_seconds=0.5)
    until = clock.monotonic() + 4
    barrier = threading.Barrier(len(keepers))

    def race(keeper: Timekeeper) -> None:
        barrier.wait()
        while clock.monotonic() < until:
            keeper.tick()

    threads = [threading.Thread(target=race, args=(keeper,)) for keeper in keepers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected: set[str] = set()
    for number in range(5):
        entry = get(connection, f"s{number}")
        assert entry.last_nominal_ms is not None
        count = (entry.last_nominal_ms - entry.created_ms) // 1000
        assert count >= 2
        expected |= {
            firing.task_id("q", entry.id, entry.created_ms + 1000 * (k + 1)).partition("_")[2]
            for k in range(count)
        }
    assert set(fired(connection)) >= expected, "one was lost"
    extra = set(fired(connection)) - expected
    assert extra == set(), "one fired that the pointer does not know"
    submitted = sum(
        keeper._metrics.registry.get_sample_value(
            "callboard_tasks_submitted_total", {"queue": "q", "name": "a.task"}
        )
        or 0
        for keeper in keepers
    )
    assert submitted == len(expected), "each firing was counted by the one who won it"
    for keeper in keepers:
        keeper._connection.close()
    connection.close()


@pytest.mark.parametrize(("policy", "count"), [("skip", 0), ("run_once", 1), ("run_all", 4)])
def test_misfires(connection: Connection, keeper: Timekeeper, policy: str, count: int) -> None:
    put(
        connection,
        interval_seconds=3600,
        misfire=policy,
        start_at=now_ms(connection) - 100 * 3_600_000 - 100_000,
    )
    keeper.tick()
    rewind(connection, 4 * 3_600_000)
    keeper.tick()
    assert len(fired(connection)) == count
    entry = get(connection)
    assert entry.nominal_ms is not None
    assert entry.nominal_ms > now_ms(connection)


def test_a_full_queue_delays_a_firing_and_then_the_policy_decides(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    tasks.accept(connection, "q", 3)
    keeper = Timekeeper(connection, "k", limits=SubmitLimits(queue_depth=3), metrics=Metrics())
    put(connection, at=now_ms(connection), misfire="skip", grace_seconds=3)
    keeper.tick()
    keeper.tick()
    keeper.tick()
    assert get(connection).nominal_ms is not None, "it waits for room"
    assert sum("cannot fire now" in line.message for line in caplog.records) == 1

    def given_up() -> bool:
        keeper.tick()
        return get(connection).nominal_ms is None

    wait_until(given_up, description="the grace to end", poll=0.1)
    assert len(fired(connection)) == 3
    assert get(connection).last_fired_ms is None


def test_room_in_time_means_a_late_firing(connection: Connection) -> None:
    [local, *_] = tasks.accept(connection, "q", 3)
    keeper = Timekeeper(connection, "k", limits=SubmitLimits(queue_depth=3), metrics=Metrics())
    put(connection, at=now_ms(connection), misfire="skip")
    keeper.tick()
    keeper.tick()
    tasks.cancel(connection, "q", local)

    def done() -> bool:
        keeper.tick()
        return get(connection).last_fired_ms is not None

    wait_until(done, description="the second try", poll=0.1)
    assert len(fired(connection)) == 4


def test_a_task_that_nobody_knows_waits_for_its_worker(connection: Connection, keeper: Timekeeper) -> None:
    put(connection, queue="", at=now_ms(connection))
    keeper.tick()
    keeper.tick()
    assert get(connection).last_fired_ms is None
    connection.run(publish(connection.keys, [Contract("a.task", queue="q")], ["q"], "w1"))

    def done() -> bool:
        keeper.tick()
        return get(connection).last_fired_ms is not None

    wait_until(done, description="the worker's catalog to be seen", poll=0.1)
    assert len(fired(connection)) == 1


def test_a_firing_that_can_never_be_accepted_is_dropped_and_the_next_one_comes(
    connection: Connection, keeper: Timekeeper, caplog: pytest.LogCaptureFixture
) -> None:
    put(connection, interval_seconds=3600, payload={"x": "x" * 300_000})
    keeper.tick()
    rewind(connection, 3_600_000)
    keeper.tick()
    assert fired(connection) == []
    assert "262,144" in caplog.text
    entry = get(connection)
    assert entry.last_fired_ms is None
    assert entry.nominal_ms is not None
    assert entry.nominal_ms > now_ms(connection)


def test_one_broken_entry_holds_up_no_other(connection: Connection, keeper: Timekeeper) -> None:
    connection.execute(Command("HSET", connection.keys.timetable, "a-strange", '{"form": 2}'))
    put(connection, id="good", at=now_ms(connection))
    keeper.tick()
    keeper.tick()
    assert len(fired(connection)) == 1


def test_a_thaw_reads_again_before_it_submits(
    connection: Connection, keeper: Timekeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was frozen between reading and submitting may be days late."""
    put(connection, at=now_ms(connection))
    keeper.tick()
    real, leaps = firing.due, [0.0]
    now = clock.monotonic

    def frozen(entry: Entry, at_ms: int) -> Any:
        leaps[0] += 10
        return real(entry, at_ms)

    monkeypatch.setattr(firing, "due", frozen)
    monkeypatch.setattr(clock, "monotonic", lambda: now() + leaps[0])
    keeper.tick()
    assert fired(connection) == []
    monkeypatch.setattr(firing, "due", real)
    keeper.tick()
    assert len(fired(connection)) == 1


def test_time_is_redis_time(
    start_server: Callable[..., EmbeddedServer], namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's clock is a day ahead; nothing fires a day early."""
    connection = Connection(start_server().url, namespace=namespace)
    keeper = Timekeeper(connection, "k", metrics=Metrics())
    put(connection, interval_seconds=3600)
    ahead = clock.now_ms() + 86_400_000
    monkeypatch.setattr(clock, "now_ms", lambda: ahead)
    for _ in range(3):
        keeper.tick()
    assert fired(connection) == []
    connection.close()
