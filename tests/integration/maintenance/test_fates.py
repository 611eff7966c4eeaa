"""A worker that vanished: what its tasks pay for, by whose doing it was."""

from __future__ import annotations

import json

import pytest

from callboard.catalog import origin
from callboard.catalog.origin import Origin
from callboard.maintenance.fate import Fate, Fates, by_note
from callboard.maintenance.policy import Policy
from callboard.maintenance.rescuer import Rescued, Rescuer, read_expired, rescue
from callboard.maintenance.watch import Watch
from callboard.storage.connection import Connection
from callboard.storage.operation import Command
from tests.support import tasks
from tests.support.waiting import wait_until

POLICY = Policy(lease_seconds=0.4)
EVICTED = Fate("its pod was evicted (EvictionByEvictionAPI)", "nothing")
PRESSED = Fate("its pod was evicted by the kubelet: low on memory", "attempt")
OOM = Fate("its container was OOMKilled", "strike")


def judged(connection: Connection, local: str, fate: Fate) -> str:
    """The state that the running task comes to when its worker w1 has met `fate`."""

    def expired() -> list[object]:
        return [one for one in connection.run(read_expired(connection.keys, "q")) if one.id == local]

    wait_until(expired, description="expiry")
    leases = connection.run(read_expired(connection.keys, "q"))
    [state] = connection.run(rescue(connection.keys, "q", leases, {"w1": fate}))
    return state


def test_somebody_elses_doing_costs_nothing_however_often(connection: Connection) -> None:
    [(local, _)] = tasks.run(connection, "q", lease_ms=1, max_attempts=1)
    for _ in range(5):
        assert judged(connection, local, EVICTED) == "queued"
        tasks.turn(connection, "q", want=1, lease_ms=1)
    record = tasks.record(connection, "q", local)
    assert (record.state, record.attempt) == ("running", 1)
    assert [attempt.outcome for attempt in record.attempts] == [None], "the one that runs"
    assert {(stop.cause, stop.worker) for stop in record.interruptions} == {(EVICTED.cause, "w1")}
    assert len(record.interruptions) == 5


def test_an_eviction_for_pressure_spends_attempts_and_is_no_strike(connection: Connection) -> None:
    [(local, _)] = tasks.run(connection, "q", lease_ms=1, max_attempts=5)
    for _ in range(4):
        assert judged(connection, local, PRESSED) == "queued"
        tasks.turn(connection, "q", want=1, lease_ms=1)
    assert judged(connection, local, PRESSED) == "failed"
    record = tasks.record(connection, "q", local)
    assert record.reason == "exhausted"
    assert [attempt.outcome for attempt in record.attempts] == ["lost"] * 5
    assert record.error is not None
    assert record.error["message"] == (
        "Worker w1 vanished while it ran this task: its pod was evicted by the kubelet: low on memory."
    )


def test_a_task_that_takes_its_containers_memory_is_quarantined(connection: Connection) -> None:
    """What was somebody else's doing in between does not hide it."""
    [(local, _)] = tasks.run(connection, "q", lease_ms=1, max_attempts=10)
    for fate in (OOM, EVICTED, OOM, PRESSED):
        assert judged(connection, local, fate) == "queued"
        tasks.turn(connection, "q", want=1, lease_ms=1)
    assert judged(connection, local, OOM) == "failed"
    record = tasks.record(connection, "q", local)
    assert record.reason == "quarantined"
    assert record.error is not None
    assert "OOMKilled" in record.error["message"]


def test_a_cancel_holds_also_then(connection: Connection) -> None:
    [(local, _)] = tasks.run(connection, "q", lease_ms=1)
    tasks.cancel(connection, "q", local)
    assert judged(connection, local, EVICTED) == "cancelled"


def test_nothing_is_judged_while_a_fate_is_looked_into(connection: Connection) -> None:
    """The others' leases need not wait for it."""
    known: list[Fate] = []
    asked: list[tuple[str, Origin | None]] = []

    def fates(worker: str, note: Origin | None) -> Fate | None:
        asked.append((worker, note))
        return EVICTED if known or worker == "w2" else None

    rescuer = steady(connection, fates)
    note = Origin(since=5, pod="w1")
    connection.run(origin.note(connection.keys, "w1", note))
    [(mine, _)] = tasks.run(connection, "q", lease_ms=1)
    [(theirs, _)] = tasks.run(connection, "q", lease_ms=1, worker="w2")
    first = wait_until(lambda: step(rescuer, connection), description="w2's rescue")
    assert first == Rescued({"queued": 1}, pending=True)
    assert tasks.record(connection, "q", mine).state == "running"
    assert tasks.record(connection, "q", theirs).state == "queued"

    def believed() -> Rescued | None:
        # A machine that stood still just before looks like an outage.
        done = look(rescuer, connection)
        return None if done.held_back else done

    waiting = wait_until(believed, description="a look at healthy leases")
    assert waiting == Rescued(pending=True)
    assert waiting.again_seconds == 0.2
    known.append(EVICTED)
    assert wait_until(lambda: step(rescuer, connection), description="w1's rescue") == Rescued({"queued": 1})
    assert ("w1", note) in asked
    assert ("w2", None) in asked


@pytest.mark.parametrize("note", ["", "{", "[]", '{"since": 1, "from": "a newer release"}'])
def test_a_note_that_helps_nobody_holds_nobody_up(connection: Connection, note: str) -> None:
    connection.execute(Command("SET", connection.keys.origin("w1"), note))
    [(local, _)] = tasks.run(connection, "q", lease_ms=1)
    rescuer = steady(connection, by_note)
    wait_until(lambda: step(rescuer, connection), description="the rescue")
    assert [attempt.outcome for attempt in tasks.record(connection, "q", local).attempts] == ["lost"]


def test_notes_are_left_read_and_taken_away(connection: Connection) -> None:
    keys = connection.keys
    left = Origin(since=1, cluster="c", namespace="n", pod="p", draining=2, reason="why")
    connection.run(origin.note(keys, "w1", left))
    assert connection.run(origin.read(keys, "w1")) == left
    assert 0 < connection.execute(Command("TTL", keys.origin("w1"))) <= origin.KEPT_SECONDS
    assert json.loads(connection.execute(Command("GET", keys.origin("w1"))))["pod"] == "p"
    connection.run(origin.forget(keys, "w1"))
    assert connection.run(origin.read(keys, "w1")) is None


def steady(connection: Connection, fates: Fates) -> Rescuer:
    """A rescuer that has seen Redis healthy for a lease."""
    watch = Watch(0.02)
    made = Rescuer(watch, lambda _queue: POLICY, fates=fates)

    def ready() -> bool:
        watch.observe(connection)
        return watch.steady_for(connection, "q", POLICY.lease_seconds)

    wait_until(ready, description="a healthy lease")
    return made


def look(rescuer: Rescuer, connection: Connection) -> Rescued:
    rescuer._watch.observe(connection)
    return rescuer.run_once(connection, "q")


def step(rescuer: Rescuer, connection: Connection) -> Rescued | None:
    done = look(rescuer, connection)
    return done if done.states else None
