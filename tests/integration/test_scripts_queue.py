"""A queue as a whole under its scripts: paused, purged, full, told nonsense, asked for one claim twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from callboard.broker.purge import purge
from callboard.records.state import State
from callboard.storage.faults import StoreRefused
from callboard.storage.operation import Operation, ScriptCall
from tests.support.scripted_queue import SCRIPTS, NewTask, ScriptedQueue, operation, pack, task_in


def test_a_paused_queue_takes_tasks_and_gives_none(queue: ScriptedQueue) -> None:
    token = task_in(queue, "running")
    assert [queue.call("pause", flag) for flag in (1, 1, 0, 0, 1)] == [1, 0, 1, 0, 1]
    queue.submit(NewTask("t2"))
    turn = queue.turn(4)
    assert (turn.claimed, turn.left, turn.paused) == ([], 1, 1)
    assert queue.complete("t1", token) == "ok"
    queue.client.delete(queue.keys.wake)
    queue.turn(4)
    assert queue.look().wake == 0, "a paused queue must not spin on tokens"
    queue.call("pause", 0)
    assert queue.look().wake == 1
    assert [id for id, _ in queue.claim()] == ["t2"]


@pytest.mark.parametrize("state", ["running", "all", "age", "events", ""])
def test_only_states_can_be_purged_and_only_ends_be_pruned(queue: ScriptedQueue, state: str) -> None:
    task_in(queue, "running")
    before = queue.look()
    with pytest.raises(StoreRefused):
        queue.call("purge", state, 10, "")
    with pytest.raises(StoreRefused):
        queue.call("prune", state or "pending", 0, 0, 10)
    assert queue.look().durable == before.durable


@pytest.mark.parametrize("state", ["pending", "queued"])
def test_a_purge_under_load_reaches_what_stands_behind_younger_tasks(
    queue: ScriptedQueue, state: str
) -> None:
    late = {"delay_ms": 60_000} if state == "pending" else {}
    soon = {"delay_ms": 30_000} if state == "pending" else {"priority": 0}
    queue.submit(*(NewTask(f"old{n}", **late) for n in range(5)))  # type: ignore[arg-type]
    dropped, looked, cursor = queue.call("purge", state, 1, "")
    assert (dropped, looked) == (1, 1)
    queue.clock += 1
    queue.submit(*(NewTask(f"new{n}", **soon) for n in range(4)))  # type: ignore[arg-type]
    total = dropped
    while looked:
        dropped, looked, cursor = queue.call("purge", state, 2, cursor)
        total += dropped
    assert total == 5
    assert queue.look().sets[state].keys() == {f"new{n}" for n in range(4)}


def test_the_door_to_purge_drops_all_that_stood_there_while_others_submit(queue: ScriptedQueue) -> None:
    for start in range(0, 300, 100):
        queue.submit(*(NewTask(f"old{n:03}") for n in range(start, start + 100)))
    newcomers: list[NewTask] = []

    def under_load() -> Operation[int]:
        door = purge(queue.connection.keys, "q", State.QUEUED)
        request = door.send(None)
        while True:
            assert isinstance(request, ScriptCall)
            reply = yield ScriptCall(SCRIPTS["purge"], request.prefix, request.args)  # on the test's clock
            queue.clock += 1
            newcomers.extend([NewTask(f"new{len(newcomers) + n:04}", priority=0) for n in range(80)])
            queue.submit(*newcomers[-80:])
            try:
                request = door.send(reply)
            except StopIteration as end:
                return int(end.value)

    assert queue.connection.run(under_load()) == 300
    assert queue.look().sets["queued"].keys() == {task.id for task in newcomers}


MALFORMED: list[tuple[str, Callable[[str], bytes]]] = [
    ("no msgpack", lambda _: b"\xc1"),
    ("an unknown kind", lambda token: operation("explode", "t2", token)),
    ("too few arguments", lambda token: operation("failed", "t2", token, "failed")),
    ("nothing", lambda _: pack([])),
]


@pytest.mark.parametrize(("_", "malformed"), MALFORMED, ids=[name for name, _ in MALFORMED])
def test_one_malformed_operation_lets_nothing_half_done(
    queue: ScriptedQueue, _: str, malformed: Callable[[str], bytes]
) -> None:
    queue.submit(NewTask("t1"), NewTask("t2"))
    claimed = dict(queue.claim(2))
    before = queue.look()
    good = operation("release", "t1", claimed["t1"], "shutdown")
    with pytest.raises(StoreRefused):
        queue.turn(0, good, malformed(claimed["t2"]))
    assert queue.look().durable == before.durable
    assert queue.turn(0, good).answers == ["ok"]


def test_one_malformed_task_lets_nothing_half_done(queue: ScriptedQueue) -> None:
    with pytest.raises(StoreRefused):
        queue.call("submit", 0, NewTask("t1").pack(), pack(["t2", b""]))
    assert queue.look().sets["all"] == {}


def test_a_submit_beyond_the_depth_is_refused_and_what_is_known_is_still_answered(
    queue: ScriptedQueue,
) -> None:
    tasks = [NewTask("t1"), NewTask("t2", delay_ms=1000), NewTask("t3")]
    assert queue.submit(*tasks, depth=2) == [("t1", "queued"), ("t2", "pending"), ("t3", "full")]
    assert queue.submit(*tasks, depth=2) == [("t1", "queued"), ("t2", "pending"), ("t3", "full")]
    assert queue.look().sets["all"].keys() == {"t1", "t2"}


def test_an_expired_task_does_not_start(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1", expires_in_ms=1000), NewTask("t2", expires_in_ms=1000, delay_ms=500))
    queue.submit(
        *(NewTask(f"x{n}", expires_in_ms=1000, priority=0) for n in range(4)), NewTask("good", priority=9)
    )
    queue.clock += 1000
    queue.client.delete(queue.keys.wake)
    turn = queue.turn(2)
    assert (turn.claimed, turn.left) == ([], 4)
    assert queue.look().wake == 1, "work is left that nobody was told of"
    found = queue.look().records["t2"]
    assert (found.state, found.mutable.reason, found.mutable.attempt) == ("cancelled", b"expired", 0)
    assert [id for id, _ in queue.claim(9)] == ["good"]


def test_a_repeated_claim_answers_the_same_tasks(queue: ScriptedQueue) -> None:
    queue.submit(*(NewTask(f"t{n:02}") for n in range(16)))
    first = queue.turn(8, nonce="lost")
    assert len(first.claimed) == 8
    assert queue.turn(8, nonce="lost") == first
    assert queue.turn(8, nonce="lost").bodies == first.bodies
    assert len(queue.look().sets["running"]) == 8
    id, token = first.claimed[0]
    queue.complete(id, token)
    assert queue.claim(8, nonce="lost") == first.claimed[1:]
    assert len(queue.claim(8, nonce="next")) == 8
    assert queue.call("forget", "w1", "w9") == 1


def test_a_claim_that_was_held_back_on_its_way_takes_nothing(queue: ScriptedQueue) -> None:
    queue.submit(*(NewTask(f"t{n}") for n in range(4)))
    assert len(queue.claim(1, nonce="9:a")) == 1
    assert len(queue.claim(1, nonce="10:b")) == 1
    assert queue.claim(1, nonce="9:a") == []
    assert queue.claim(1, nonce="9:a", worker="w2") != []
    assert len(queue.claim(1, nonce="11:c")) == 1


def test_a_task_completed_and_its_neighbour_claimed_in_one_turn_that_is_sent_twice(
    queue: ScriptedQueue,
) -> None:
    queue.submit(NewTask("t1"), NewTask("t2"))
    [(id, token)] = queue.claim()
    done = operation("completed", id, token, b"{}", [])
    first = queue.turn(1, done, nonce="n")
    second = queue.turn(1, done, nonce="n")
    assert (first.answers, second.answers) == (["ok"], ["already"])
    assert first.claimed == second.claimed
    assert [claimed for claimed, _ in first.claimed] == ["t2"]


def test_a_task_that_fell_due_between_two_sends_of_a_claim_wakes_somebody(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1"), NewTask("t2", delay_ms=10))
    assert queue.turn(1, nonce="n").next_due == 10
    queue.client.delete(queue.keys.wake)
    queue.clock += 10
    second = queue.turn(1, nonce="n")
    assert ([id for id, _ in second.claimed], second.left) == (["t1"], 1)
    assert queue.look().wake == 1


def test_a_maintenance_lease_has_one_holder(queue: ScriptedQueue) -> None:
    assert queue.call("lease", "rescuer", "a", 5000) == 1
    assert queue.call("lease", "rescuer", "b", 5000) == 0
    assert queue.call("lease", "promoter", "b", 5000) == 1
    assert queue.call("lease", "rescue", "c", 5000) == 1, "another loop, though its name begins alike"
    queue.clock += 4999
    assert queue.call("lease", "rescuer", "b", 5000) == 0
    assert queue.call("lease", "rescuer", "a", 5000) == 1
    queue.clock += 5000
    assert queue.call("lease", "rescuer", "b", 5000) == 1
    assert queue.call("lease", "rescuer", "a", 5000) == 0
    assert queue.call("lease", "rescuer", "a", 0) == 0, "letting go of what somebody else holds takes nothing"
    assert queue.call("lease", "rescuer", "a", 5000) == 0
    queue.call("lease", "rescuer", "b", 0)
    assert queue.call("lease", "rescuer", "a", 5000) == 1
