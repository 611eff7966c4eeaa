"""Holds a queue, as it is stored, against the model: the invariants of the engine, and every field."""

from __future__ import annotations

from callboard.records import layout
from tests.support.engine_model import Engine
from tests.support.scripted_queue import STATES, Record, Snapshot
from tests.support.task_model import K, Task


def check(model: Engine, found: Snapshot) -> None:
    """Raises AssertionError, naming what differs."""
    for state in STATES:
        expected = {task.id: float(task.place[0]) for task in model.within(state)}
        assert list(found.sets[state].items()) == list(expected.items()), f"the set {state}"
    assert found.sets["all"] == {task.id: float(task.created) for task in model.tasks.values()}, "the set all"
    queued = {task.id: float(task.queued) for task in model.within("queued")}
    assert found.sets["age"] == queued, "the set age"
    assert found.records.keys() == model.tasks.keys()
    for id, task in model.tasks.items():
        check_record(task, found.records[id])
    check_fairness(model, found)
    assert ("paused" in found.meta) == model.paused
    assert found.claims == {worker: [nonce, *ids] for worker, (nonce, ids) in model.claims.items()}
    assert found.sets["outbox"].keys() == model.outbox.keys(), "the outbox"
    sums = {
        kind: sum(n for name, n in found.runs.items() if name.endswith(":" + kind))
        for kind in ("n", "f", "ms")
    }
    assert (sums["n"], sums["f"]) == (model.finished_runs, model.failed_runs), "the tallies"
    assert sums["ms"] >= 0
    check_somebody_wakes(model, found)


def check_record(task: Task, record: Record) -> None:
    m = record.mutable
    assert record.has_body
    stored = {
        "state": m.state.decode(), "reason": m.reason.decode(), "token": m.token.decode(),
        "attempt": m.attempt, "max_attempts": m.max_attempts, "losses": m.losses, "misses": m.misses,
        "created": m.created, "expires": m.expires, "queued": m.queued, "started": m.started,
        "finished": m.finished, "wait": m.wait, "cancel": bool(m.cancel), "terminate": m.terminate,
        "worker": m.worker.decode(), "progress": m.progress, "options": m.options, "runs": m.runs,
        "nonce": m.nonce.decode(), "replay": m.replay.decode(), "priority": m.priority, "due": m.due,
        "lines": m.log_lines, "score": m.score if m.queued else 0,
    }  # fmt: skip
    expected = {
        "state": task.state, "reason": task.reason, "token": task.token, "attempt": task.attempt,
        "max_attempts": task.max_attempts, "losses": task.losses, "misses": task.misses,
        "created": task.created, "expires": task.expires, "queued": task.queued, "started": task.started,
        "finished": task.finished, "wait": task.wait, "cancel": bool(task.cancel),
        "terminate": task.terminate, "worker": task.worker, "progress": task.progress,
        "options": task.options, "runs": task.runs, "nonce": task.new.nonce, "replay": task.replay,
        "priority": task.new.priority, "due": task.due, "lines": len(task.log),
        "score": task.score if task.queued else 0,
    }  # fmt: skip
    assert stored == expected, f"the record of {task.id}"
    attempts, interruptions, result = layout.history(record.history)
    assert [(a.number, a.outcome) for a in attempts][-20:] == task.attempts[-20:], f"attempts of {task.id}"
    assert [stop.cause for stop in interruptions][-20:] == task.interruptions[-20:], f"stops of {task.id}"
    assert (result is not None) == (task.state == "completed")
    assert [entry.message for entry in layout.log(record.log)] == task.log, f"the log of {task.id}"


def check_fairness(model: Engine, found: Snapshot) -> None:
    """Places are compared by what they mean: the queue may have dropped one that means nothing any more."""
    for priority, fairness in enumerate(model.fair):
        v = int(found.meta.get(f"v{priority}", 0))
        assert v == fairness.v, f"the clock of priority {priority}"
        stored = found.fair.get(priority, {})
        counts: dict[str, int] = {}
        for task in model.within("queued"):
            if task.new.priority == priority:
                counts[task.new.key] = counts.get(task.new.key, 0) + 1
        assert {key: n for key, (_, _, n) in stored.items() if n} == counts, f"places at priority {priority}"
        assert counts or not stored, f"priority {priority} is empty, its places are not"
        for key in stored.keys() | fairness.places.keys():
            tail, served, _ = stored.get(key, (0, 0, 0))
            place = fairness.places.get(key)
            assert max(v, tail) == max(v, place.tail if place else 0), f"the tail of {key} at {priority}"
            assert max(v, served) == max(v, place.served if place else 0), f"served of {key} at {priority}"
            assert tail < K


def check_somebody_wakes(model: Engine, found: Snapshot) -> None:
    """Consumers sleep until a token comes or the task that was the next one due is due."""
    assert found.wake <= 1
    if found.sets["queued"] and not model.paused:
        assert found.wake, "tasks are queued and nobody is told"
    if pending := model.within("pending"):
        told = model.told_due is not None and model.told_due <= pending[0].due
        assert found.wake or told, "a task is due before anybody wakes"
