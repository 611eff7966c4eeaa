"""Records that cannot be decoded: the task fails with the cause, whoever meets it, and meets it but once."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callboard.records import layout, store
from callboard.records.state import State
from tests.support.scripted_queue import LEASE_MS, STATES, TERMINAL, NewTask, ScriptedQueue, operation

Damage = Callable[[ScriptedQueue, str], None]


def garbage(queue: ScriptedQueue, id: str) -> None:
    queue.client.set(queue.keys.mutable(id), b"\x01\xc1 garbage \xff\x00")


def another_version(queue: ScriptedQueue, id: str) -> None:
    raw = queue.client.get(queue.keys.mutable(id))
    assert isinstance(raw, bytes)
    queue.client.set(queue.keys.mutable(id), b"\x7f" + raw[1:])


def cut_off(queue: ScriptedQueue, id: str) -> None:
    raw = queue.client.get(queue.keys.mutable(id))
    assert isinstance(raw, bytes)
    queue.client.set(queue.keys.mutable(id), raw[: len(raw) // 2])


def another_thing(queue: ScriptedQueue, id: str) -> None:
    queue.client.set(queue.keys.mutable(id), b"\x01\x93\x01\x02\x03")  # an array, of three


def missing(queue: ScriptedQueue, id: str) -> None:
    queue.client.delete(queue.keys.mutable(id))


def body_missing(queue: ScriptedQueue, id: str) -> None:
    queue.client.delete(queue.keys.immutable(id))


UNREADABLE: tuple[Damage, ...] = (garbage, another_version, cut_off, another_thing, missing)
damages = pytest.mark.parametrize("damage", UNREADABLE, ids=lambda damage: damage.__name__)


def buried(queue: ScriptedQueue, id: str) -> None:
    """The task has failed with the cause, stands nowhere else, and can be read, but not run again."""
    found = queue.look()
    assert [state for state in STATES if id in found.sets[state]] == ["failed"]
    assert id in found.sets["all"]
    assert id not in found.sets["age"]
    record = queue.connection.run(store.fetch(queue.connection.keys, f"q_{id}"))
    assert record is not None
    assert (record.state, record.reason) == (State.FAILED, "permanent")
    assert record.error is not None
    assert record.error["type"] == "UndecodableRecord"
    assert queue.retry(id) == ("conflict", "failed")
    assert queue.delete(id) == ("ok", "failed")
    assert id not in queue.look().sets["all"]


@pytest.mark.parametrize("damage", [*UNREADABLE, body_missing], ids=lambda damage: damage.__name__)
def test_a_claim_fails_it_and_goes_on_with_the_next(queue: ScriptedQueue, damage: Damage) -> None:
    queue.submit(NewTask("bad", key="a"), NewTask("good", key="b"), NewTask("next", key="b"))
    damage(queue, "bad")
    turn = queue.turn(2)
    assert [id for id, _ in turn.claimed] == ["good"]
    assert queue.look().wake == 1
    assert [id for id, _ in queue.claim(2)] == ["next"]
    buried(queue, "bad")


def test_a_claim_that_finds_no_body_gives_the_fair_place_back(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("bad", key="a"), NewTask("same", key="a"), NewTask("other", key="b", priority=9))
    body_missing(queue, "bad")
    assert queue.claim(1) == []
    assert queue.look().fair[5]["a"][2] == 1


@pytest.mark.parametrize("damage", [another_version, cut_off], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("how", ["claim", "cancel", "delete", "purge"])
def test_its_key_gets_the_place_back(queue: ScriptedQueue, damage: Damage, how: str) -> None:
    """Else the key of a backlog that is cancelled would go on waiting behind it."""
    queue.submit(NewTask("bad", key="a"), NewTask("same", key="a"), NewTask("other", key="b"))
    damage(queue, "bad")
    match how:
        case "claim":
            assert queue.claim(1) == []
        case "cancel":
            assert queue.cancel("bad") == ("conflict", "failed")
        case "delete":
            assert queue.delete("bad") == ("ok", "failed")
        case "purge":
            assert queue.call("purge", "queued", 1, "")[0] == 1
    assert {key: n for key, (_, _, n) in queue.look().fair[5].items()} == {"a": 1, "b": 1}
    assert queue.cancel("same") == ("done", "cancelled")
    assert "a" not in queue.look().fair[5]


def test_a_count_that_nobody_can_put_right_is_forgotten_once_it_means_nothing(queue: ScriptedQueue) -> None:
    queue.submit(
        NewTask("bad", key="a"), NewTask("same", key="a"), *(NewTask(f"b{n}", key="b") for n in range(6))
    )
    garbage(queue, "bad")
    assert queue.cancel("bad") == ("conflict", "failed")
    assert queue.look().fair[5]["a"][2] == 2, "one too many"
    queue.claim(3)
    queue.call("tidy", 5, "0")
    assert "a" in queue.look().fair[5], "the clock has not passed its tail"
    queue.claim(2)
    queue.call("tidy", 5, "0")
    assert queue.look().fair[5].keys() == {"b"}
    queue.claim(6)
    queue.call("tidy", 5, "0")
    found = queue.look()
    assert found.fair == {}
    assert "g5" not in found.meta


@damages
def test_a_due_one_fails(queue: ScriptedQueue, damage: Damage) -> None:
    queue.submit(NewTask("bad", delay_ms=1000), NewTask("good", delay_ms=1000))
    damage(queue, "bad")
    queue.clock += 1000
    assert queue.call("promote") == [2, -1]
    assert queue.call("promote") == [0, -1]
    buried(queue, "bad")
    assert [id for id, _ in queue.claim(4)] == ["good"]


@damages
def test_a_running_one_is_lost_to_its_worker_and_fails_at_the_rescue(
    queue: ScriptedQueue, damage: Damage
) -> None:
    queue.submit(NewTask("bad"))
    [(_, token)] = queue.claim()
    damage(queue, "bad")
    assert queue.renew(("bad", token)) == ["lost"]
    assert queue.note("bad", token, b"{}", 1) == "lost"
    assert queue.turn(0, operation("completed", "bad", token, b"{}", [])).answers == ["lost"]
    assert queue.rescue(("bad", "", False)) == [""]
    queue.clock += LEASE_MS
    [[id, token, worker, _]] = queue.call("expired", 10)
    assert (id, token, worker) == ("bad", "", "")
    assert queue.rescue(("bad", token, False)) == ["failed"]
    buried(queue, "bad")


@damages
@pytest.mark.parametrize("state", STATES)
def test_a_cancel_says_what_it_found(queue: ScriptedQueue, damage: Damage, state: str) -> None:
    bring_into(queue, state)
    damage(queue, "bad")
    if damage is missing:
        assert queue.cancel("bad") == ("missing", "")
        return
    assert queue.cancel("bad") == ("conflict", "failed")
    buried(queue, "bad")


@pytest.mark.parametrize("damage", [garbage, another_version], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("state", STATES)
def test_it_can_be_deleted_wherever_it_stands(queue: ScriptedQueue, damage: Damage, state: str) -> None:
    bring_into(queue, state)
    damage(queue, "bad")
    assert queue.retry("bad") == ("conflict", "failed")
    assert queue.delete("bad") == ("ok", "failed")
    found = queue.look()
    assert all(found.sets[name] == {} for name in (*STATES, "all", "age"))
    queue.clock += LEASE_MS
    assert queue.claim(4) == []
    assert queue.call("promote") == [0, -1]


@damages
@pytest.mark.parametrize("state", sorted(set(STATES) - {"running"}))
def test_a_purge_drops_it(queue: ScriptedQueue, damage: Damage, state: str) -> None:
    bring_into(queue, state)
    damage(queue, "bad")
    assert queue.call("purge", state, 10, "")[0] == 1
    assert queue.look().sets["all"] == {}


@damages
@pytest.mark.parametrize("state", TERMINAL)
def test_retention_drops_it(queue: ScriptedQueue, damage: Damage, state: str) -> None:
    bring_into(queue, state)
    damage(queue, "bad")
    assert queue.call("prune", state, 0, -1, 10) == [1, 0]
    assert queue.look().sets["all"] == {}


@pytest.mark.parametrize("damage", [garbage, another_version], ids=lambda damage: damage.__name__)
def test_a_submit_of_its_id_runs_nothing_twice(queue: ScriptedQueue, damage: Damage) -> None:
    queue.submit(NewTask("bad", nonce="a"))
    queue.claim()
    damage(queue, "bad")
    assert queue.submit(NewTask("bad", nonce="b")) == [("bad", "failed")]
    assert queue.look_at_sets() == {"running": {"bad"}}


def test_a_history_that_cannot_be_cut_begins_anew(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1", max_attempts=-1))
    for attempt in range(51):
        [(_, token)] = queue.claim()
        if attempt == 50:
            queue.client.set(queue.keys.history("t1"), b"\x01\xc1\xff")
        assert queue.retry_later("t1", token) == "ok"
    [(_, token)] = queue.claim()
    assert queue.complete("t1", token) == "ok"
    attempts, _, result = layout.history(queue.look().records["t1"].history)
    assert [attempt.number for attempt in attempts] == [51]
    assert result == b"{}"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(junk=st.binary(max_size=80), keep=st.integers(0, 120))
def test_no_bytes_wedge_a_queue(queue: ScriptedQueue, junk: bytes, keep: int) -> None:
    id = queue.nonce()
    queue.submit(NewTask(id), NewTask(id + "good", priority=9))
    raw = queue.client.get(queue.keys.mutable(id))
    assert isinstance(raw, bytes)
    queue.client.set(queue.keys.mutable(id), raw[:keep] + junk)
    claimed = [claimed for _ in range(2) for claimed in queue.claim(2)]
    assert id + "good" in dict(claimed)
    for claim in claimed:
        queue.complete(*claim)
    assert queue.look_at_sets().get("queued") is None


@pytest.mark.parametrize("state", ["pending", "queued", "running", "cancel"])
def test_a_flipped_byte_stops_no_script_halfway(queue: ScriptedQueue, state: str) -> None:
    noise = random.Random(state)
    for trial in range(100):
        id = f"t{trial}"
        queue.submit(NewTask(id, priority=0))
        [(_, token)] = queue.claim()
        if state == "pending":
            queue.retry_later(id, token, 5)
        elif state != "running":
            queue.settle("release", id, token, "shutdown")
        raw: Any = queue.client.get(queue.keys.mutable(id))
        damaged = bytearray(raw)
        damaged[noise.randrange(1, len(raw))] = noise.choice(
            [0xC0, 0xA0, 0x01, 0x80, 0x90, noise.randrange(256)]
        )
        queue.client.set(queue.keys.mutable(id), bytes(damaged))
        queue.clock += 5
        if state == "running":
            queue.renew((id, token))
            queue.note(id, token, b"{}", 1, 1, [b"line"])
            queue.clock += LEASE_MS
            queue.rescue(*((id, token, True) for id, token, _, _ in queue.call("expired", 9)))
        elif state == "cancel":
            queue.cancel(id)
        for claimed in queue.claim(4):
            queue.complete(*claimed)
        waiting = queue.look_at_sets()
        assert id not in waiting.get("queued", ())
        queue.client.delete(queue.keys.state("pending"), queue.keys.state("running"))


def bring_into(queue: ScriptedQueue, state: str) -> None:
    queue.submit(NewTask("bad", delay_ms=1000 if state == "pending" else 0))
    if state == "cancelled":
        queue.cancel("bad")
    elif state in ("running", "completed", "failed"):
        [(id, token)] = queue.claim()
        if state != "running":
            assert (queue.complete if state == "completed" else queue.fail)(id, token) == "ok"
