"""Scripts called when they should not be, or twice, or with somebody else's token: what they answer, and that
they change nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.scripted_queue import (
    LEASE_MS,
    STATES,
    NewTask,
    ScriptedQueue,
    line,
    task_in,
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
