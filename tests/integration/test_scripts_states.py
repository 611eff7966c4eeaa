"""Scripts called when they should not be, or twice, or with somebody else's token: what they answer, and that
they change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from callboard.broker.purge import purge
from callboard.records.state import State
from callboard.storage.connection import Connection
from callboard.storage.faults import StoreRefused
from callboard.storage.operation import Operation, ScriptCall
from tests.support.scripted_queue import (
    LEASE_MS,
    SCRIPTS,
    STATES,
    NewTask,
    ScriptedQueue,
    line,
    operation,
    pack,
)

FORGED = "1.forged-1"
#: What a worker may say, with its arguments.
ENDINGS: dict[str, tuple[object, ...]] = {
    "completed": (b"{}", []),
    "failed": ("failed", "exhausted", b"{}", []),
    "retry": ("failed", b"{}", 1000, b""),
    "snooze": ("busy", 1000),
    "release": ("shutdown",),
    "unknown": (),
    "cancelled": ("cancelled", b"{}"),
}
AFTERWARDS = {
    "completed": "completed",
    "failed": "failed",
    "retry": "pending",
    "snooze": "pending",
    "release": "queued",
    "unknown": "pending",
    "cancelled": "cancelled",
}


@pytest.fixture
def queue(redis_url: str, namespace: str) -> Iterator[ScriptedQueue]:
    connection = Connection(redis_url, namespace=namespace)
    yield ScriptedQueue(connection)
    connection.close()


def task_in(queue: ScriptedQueue, state: str, id: str = "t1") -> str:
    """Bring a task into `state`; returns its token, "" where it never ran."""
    if state == "pending":
        queue.submit(NewTask(id, delay_ms=60_000))
        return ""
    queue.submit(NewTask(id))
    if state == "queued":
        return ""
    if state == "cancelled":
        assert queue.cancel(id) == ("done", "cancelled")
        return ""
    [(_, token)] = queue.claim()
    if state == "completed":
        assert queue.complete(id, token) == "ok"
    elif state == "failed":
        assert queue.fail(id, token) == "ok"
    assert queue.state(id) == state
    return token


@pytest.mark.parametrize("kind", ENDINGS)
def test_an_ending_moves_a_running_task_once(queue: ScriptedQueue, kind: str) -> None:
    token = task_in(queue, "running")
    assert queue.settle(kind, "t1", token, *ENDINGS[kind]) == "ok"
    after = queue.look()
    assert after.sets[AFTERWARDS[kind]].keys() == {"t1"}
    assert queue.settle(kind, "t1", token, *ENDINGS[kind]) == "already"
    assert queue.look().durable == after.durable


@pytest.mark.parametrize("kind", ENDINGS)
@pytest.mark.parametrize("state", STATES)
def test_an_ending_under_a_token_of_nobody_is_lost(queue: ScriptedQueue, kind: str, state: str) -> None:
    task_in(queue, state)
    before = queue.look()
    assert queue.settle(kind, "t1", FORGED, *ENDINGS[kind]) == "lost"
    assert queue.settle(kind, "nobody", FORGED, *ENDINGS[kind]) == "lost"
    assert queue.look().durable == before.durable


@pytest.mark.parametrize("kind", ENDINGS)
@pytest.mark.parametrize("gone", [True, False])
def test_an_ending_after_a_rescue_is_lost_not_already(queue: ScriptedQueue, kind: str, gone: bool) -> None:
    token = task_in(queue, "running")
    queue.clock += LEASE_MS
    assert queue.rescue(("t1", token, gone)) == ["queued"]
    assert queue.settle(kind, "t1", token, *ENDINGS[kind]) == "lost"
    queue.claim()
    assert queue.settle(kind, "t1", token, *ENDINGS[kind]) == "lost"
    assert queue.state("t1") == "running"


@pytest.mark.parametrize("kind", sorted(ENDINGS.keys() - {"completed"}))
def test_an_ending_that_is_told_again_after_the_next_claim(queue: ScriptedQueue, kind: str) -> None:
    token = task_in(queue, "running")
    assert queue.settle(kind, "t1", token, *ENDINGS[kind]) == "ok"
    if AFTERWARDS[kind] in ("failed", "cancelled"):
        assert queue.retry("t1") == ("ok", "queued")
    queue.clock += 5000
    [(_, second)] = queue.claim()
    # A missing name leaves no trace but the token: told late enough, it is nobody's, which harms nobody.
    assert queue.settle(kind, "t1", token, *ENDINGS[kind]) == ("lost" if kind == "unknown" else "already")
    assert queue.complete("t1", second) == "ok"


def test_a_token_is_compared_whole(queue: ScriptedQueue) -> None:
    queue.submit(*(NewTask(f"t{n:02}") for n in range(12)))
    claimed = dict(queue.claim(12))
    assert claimed["t09"].endswith("-10")
    shorter = claimed["t09"].removesuffix("0")
    assert queue.complete("t09", shorter) == "lost"
    assert queue.retry_later("t09", claimed["t09"]) == "ok"
    queue.claim()
    assert queue.complete("t09", shorter) == "lost"
    assert queue.complete("t09", claimed["t09"]) == "already"


@pytest.mark.parametrize("state", STATES)
def test_renew_and_note_reach_running_tasks_only(queue: ScriptedQueue, state: str) -> None:
    token = task_in(queue, state)
    if state == "running":
        assert queue.renew(("t1", token)) == ["ok"]
        assert queue.note("t1", token, b"{}", 1) == "ok"
        token = FORGED
    before = queue.look()
    assert queue.renew(("t1", token), ("t1", FORGED), ("nobody", FORGED)) == ["lost"] * 3
    assert queue.note("t1", token or FORGED, b"{}", 9, 1, [b"\x94\x01\x01\xa1i\xa1x"]) == "lost"
    assert queue.look().durable == before.durable


@pytest.mark.parametrize(
    ("state", "cancel", "retry", "delete"),
    [
        ("pending", ("done", "cancelled"), ("conflict", "pending"), ("conflict", "pending")),
        ("queued", ("done", "cancelled"), ("conflict", "queued"), ("conflict", "queued")),
        ("running", ("asked", "running"), ("conflict", "running"), ("conflict", "running")),
        ("completed", ("conflict", "completed"), ("conflict", "completed"), ("ok", "completed")),
        ("failed", ("conflict", "failed"), ("ok", "queued"), ("ok", "failed")),
        ("cancelled", ("done", "cancelled"), ("ok", "queued"), ("ok", "cancelled")),
    ],
)
def test_what_an_operator_may_do_in_each_state(
    queue: ScriptedQueue, state: str, cancel: tuple[str, str], retry: tuple[str, str], delete: tuple[str, str]
) -> None:
    for id, act, expected in (
        ("t1", queue.cancel, cancel),
        ("t2", queue.retry, retry),
        ("t3", queue.delete, delete),
    ):
        task_in(queue, state, id)
        before = queue.look()
        assert act(id) == expected
        if expected[0] == "conflict":
            assert queue.look().durable == before.durable
        queue.claim(9)  # out of the way of the next one


def test_nobody_knows_an_id_that_never_was(queue: ScriptedQueue) -> None:
    assert queue.cancel("nobody") == queue.retry("nobody") == queue.delete("nobody") == ("missing", "")
    assert queue.look().sets["all"] == {}


@pytest.mark.parametrize("kind", ["retry", "snooze", "release", "unknown"])
@pytest.mark.parametrize("terminate", [False, True])
def test_a_cancel_asked_for_is_honoured_on_the_way_back(
    queue: ScriptedQueue, kind: str, terminate: bool
) -> None:
    token = task_in(queue, "running")
    assert queue.cancel("t1", terminate=terminate) == ("asked", "running")
    assert queue.renew(("t1", token)) == ["terminate" if terminate else "cancel"]
    assert queue.settle(kind, "t1", token, *ENDINGS[kind]) == "ok"
    found = queue.look().records["t1"]
    assert found.state == "cancelled"
    assert found.mutable.reason == (b"terminated" if terminate else b"cancelled")


@pytest.mark.parametrize("gone", [True, False])
def test_a_cancelled_task_of_a_dead_worker_does_not_run_again(queue: ScriptedQueue, gone: bool) -> None:
    token = task_in(queue, "running")
    queue.cancel("t1")
    queue.clock += LEASE_MS
    assert queue.rescue(("t1", token, gone)) == ["cancelled"]
    assert queue.claim(4) == []


def test_a_cancel_asked_for_does_not_undo_success(queue: ScriptedQueue) -> None:
    token = task_in(queue, "running")
    queue.cancel("t1")
    assert queue.complete("t1", token) == "ok"
    assert queue.state("t1") == "completed"


def test_a_softer_cancel_does_not_take_a_termination_back(queue: ScriptedQueue) -> None:
    token = task_in(queue, "running")
    queue.cancel("t1", terminate=True)
    queue.cancel("t1")
    assert queue.renew(("t1", token)) == ["terminate"]


def test_a_cancel_is_heard_at_once(queue: ScriptedQueue) -> None:
    token = task_in(queue, "running")
    ear = queue.client.pubsub()
    ear.subscribe(queue.keys.control("w1"), queue.keys.done("t1"))
    for _ in range(2):
        assert ear.get_message(timeout=5)
    queue.cancel("t1", terminate=True)
    queue.settle("cancelled", "t1", token, *ENDINGS["cancelled"])
    heard = [ear.get_message(timeout=5) for _ in range(2)]
    ear.close()
    assert [message and message["data"] for message in heard] == [
        f"terminate t1 {token}".encode(),
        b"cancelled",
    ]


@pytest.mark.parametrize("state", ["pending", "queued", "completed", "failed", "cancelled"])
def test_rescue_leaves_those_alone_that_do_not_run(queue: ScriptedQueue, state: str) -> None:
    token = task_in(queue, state)
    queue.clock += 10 * LEASE_MS
    before = queue.look()
    assert queue.rescue(("t1", token, True), ("nobody", FORGED, True)) == ["", ""]
    assert queue.look().durable == before.durable


def test_rescue_leaves_those_alone_that_are_renewed_or_claimed_anew(queue: ScriptedQueue) -> None:
    token = task_in(queue, "running")
    queue.clock += LEASE_MS
    assert queue.renew(("t1", token)) == ["ok"]  # revived: expired, and nobody had rescued it
    assert queue.rescue(("t1", token, True)) == [""]
    queue.clock += LEASE_MS
    assert queue.rescue(("t1", FORGED, True)) == [""]
    assert queue.rescue(("t1", token, True)) == ["queued"]
    assert queue.rescue(("t1", token, True)) == [""]


def test_the_third_lost_lease_quarantines_also_without_an_attempt_spent(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1", max_attempts=-1))
    for loss, (gone, state) in enumerate([(False, "queued"), (True, "queued"), (False, "failed")]):
        [(_, token)] = queue.claim()
        assert token.startswith("1." if loss < 2 else "2.")
        queue.clock += LEASE_MS
        assert queue.rescue(("t1", token, gone)) == [state]
    found = queue.look().records["t1"]
    assert found.mutable.reason == b"quarantined"
    assert b"LeaseLost" in (found.history or b"")


def test_a_vanished_worker_spends_the_last_attempt(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1", max_attempts=1))
    [(_, token)] = queue.claim()
    queue.clock += LEASE_MS
    assert queue.rescue(("t1", token, True)) == ["failed"]
    assert queue.look().records["t1"].mutable.reason == b"exhausted"


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


def test_a_follower_of_another_outcome_does_not_overwrite_one_that_waits(queue: ScriptedQueue) -> None:
    token = task_in(queue, "running")
    assert queue.settle("failed", "t1", token, "failed", "exhausted", b"{}", [b"on failure"]) == "ok"
    queue.retry("t1")
    [(_, token)] = queue.claim()
    assert queue.complete("t1", token, followers=[b"next", b"and next"]) == "ok"
    members = queue.look().ordered("outbox")
    bodies = [queue.client.get(queue.keys.outbox_body(member)) for member in members]
    assert sorted(bodies) == [b"and next", b"next", b"on failure"]  # type: ignore[type-var]
    assert queue.call("delivered", *members) == 3
    assert queue.call("delivered", *members) == 0


def test_a_name_that_nobody_knows_backs_off_and_costs_no_attempt(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1"))
    waits = []
    for _ in range(9):
        [(_, token)] = queue.claim()
        assert token.startswith("1.")
        assert queue.settle("unknown", "t1", token) == "ok"
        m = queue.look().records["t1"].mutable
        assert (m.state, m.reason, m.attempt, m.wait) == (b"pending", b"backoff", 0, -1)
        waits.append(m.due - queue.clock)
        queue.clock = m.due
    assert waits == [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]


def test_what_comes_with_the_end_is_told_before_it(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1"))
    [(_, token)] = queue.claim()
    assert queue.note("t1", token, progress=b"half", seq=1, lines=[line("one")]) == "ok"
    told: dict[str, Any] = {"progress": (b"whole", 2), "lines": [line("one"), line("two")]}
    assert queue.settle("completed", "t1", token, b"{}", [], **told) == "ok"
    client: Any = queue.connection.client
    entries = client.xrange(queue.keys.events)
    told_of = [fields[b"e"].split(b"\x1f") for _, fields in entries]
    assert [(entry[0], entry[-1]) for entry in told_of] == [
        (b"s", b""), (b"t", b""), (b"p", b"half"), (b"l", b"1"), (b"p", b"whole"), (b"l", b"2"), (b"c", b""),
    ]  # fmt: skip
