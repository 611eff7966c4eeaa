"""What is bounded: histories, logs, claims, steps of loops, the event stream. And what the clock may do."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from callboard.records import layout
from callboard.storage.connection import Connection
from callboard.storage.faults import StoreRefused
from tests.support.scripted_queue import LEASE_MS, START_MS, NewTask, ScriptedQueue, line, operation, pack

KIB = 1024


@pytest.fixture
def queue(redis_url: str, namespace: str) -> Iterator[ScriptedQueue]:
    connection = Connection(redis_url, namespace=namespace, events_keep=100)
    yield ScriptedQueue(connection)
    connection.close()


def history(queue: ScriptedQueue, id: str) -> tuple[list[Any], list[Any], bytes | None]:
    return layout.history(queue.look().records[id].history)


def test_a_history_keeps_the_newest_twenty_undamaged(queue: ScriptedQueue) -> None:
    noise = random.Random(5)
    queue.submit(NewTask("t1", max_attempts=-1))
    errors = {}
    for number in range(1, 121):
        [(_, token)] = queue.claim()
        errors[number] = noise.randbytes(noise.choice([0, 3, 31, 32, 300, 70_000 if number % 40 == 0 else 9]))
        assert queue.settle("retry", "t1", token, "failed", errors[number], 0, b"") == "ok"
        attempts, _, _ = history(queue, "t1")
        newest = attempts[-20:]
        assert [attempt.number for attempt in newest] == list(range(max(1, number - 19), number + 1))
        assert all(attempt.error == errors[attempt.number] for attempt in attempts)
        assert len(attempts) <= 50
        assert queue.look().records["t1"].mutable.history == len(attempts)
    [(_, token)] = queue.claim()
    assert queue.complete("t1", token, b'{"kept":true}') == "ok"
    attempts, _, result = history(queue, "t1")
    assert (attempts[-1].number, result) == (120, b'{"kept":true}')


def test_interruptions_do_not_push_attempts_out_of_the_history(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1", max_attempts=-1))
    for _ in range(25):
        [(_, token)] = queue.claim()
        assert queue.retry_later("t1", token) == "ok"
    for number in range(200):
        [(_, token)] = queue.claim()
        assert queue.settle("snooze", "t1", token, f"snooze {number}", 0) == "ok"
    attempts, interruptions, _ = history(queue, "t1")
    assert [attempt.number for attempt in attempts][-20:] == list(range(6, 26))
    assert [stop.cause for stop in interruptions][-20:] == [f"snooze {n}" for n in range(180, 200)]
    assert len(attempts) + len(interruptions) <= 50
    assert queue.look().records["t1"].mutable.attempt == 25


def test_an_ending_is_known_by_its_token_after_the_history_was_cut(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1", max_attempts=-1))
    tokens = []
    for _ in range(60):
        [(_, token)] = queue.claim()
        tokens.append(token)
        assert queue.retry_later("t1", token) == "ok"
    queue.claim()
    assert {queue.retry_later("t1", token) for token in tokens[-20:]} == {"already"}
    assert (
        queue.retry_later("t1", tokens[0]) == "lost"
    )  # an hour of resends later; nothing happens either way


def test_a_log_keeps_its_first_thousand_lines_and_counts_the_others(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1"))
    [(_, token)] = queue.claim()
    for start in range(1, 1101, 100):
        lines = [line(f"line {number}") for number in range(start, start + 100)]
        assert queue.note("t1", token, b"", 0, start, lines) == "ok"
    record = queue.look().records["t1"]
    assert [entry.message for entry in layout.log(record.log)] == [f"line {n}" for n in range(1, 1001)]
    assert record.mutable.log_lines == 1100


def test_a_log_holds_256_kib_and_goes_on_counting(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1"))
    [(_, token)] = queue.claim()
    for number in range(1, 41):
        assert queue.note("t1", token, b"", 0, number, [line("x" * 8 * KIB)]) == "ok"
    record = queue.look().records["t1"]
    assert record.log is not None
    assert 240 * KIB < len(record.log) <= 256 * KIB + 1
    assert record.mutable.log_lines == 40
    assert queue.complete("t1", token) == "ok"


def test_lines_that_came_already_are_dropped_and_each_attempt_counts_from_one(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1"))
    [(_, token)] = queue.claim()
    assert queue.note("t1", token, b"", 0, 1, [line("one"), line("two")]) == "ok"
    assert queue.note("t1", token, b"", 0, 2, [line("two"), line("three")]) == "ok"
    last = [line("three"), line("four")]
    retry = operation("retry", "t1", token, "failed", b"{}", 0, b"", lines=last, first=3)
    assert queue.turn(0, retry).answers == ["ok"]
    assert queue.turn(0, retry).answers == ["already"]
    [(_, token)] = queue.claim()
    assert queue.note("t1", token, b"", 0, 1, [line("again one")]) == "ok"
    log = layout.log(queue.look().records["t1"].log)
    assert [entry.message for entry in log] == ["one", "two", "three", "four", "again one"]


def test_progress_goes_forward_only(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1"))
    [(_, token)] = queue.claim()
    for seq, told in [(2, b"second"), (1, b"first"), (2, b"second again")]:
        assert queue.note("t1", token, told, seq) == "ok"
        assert queue.look().records["t1"].mutable.progress == b"second"
    assert queue.turn(0, operation("completed", "t1", token, b"{}", [], progress=(b"last", 3))).answers == [
        "ok"
    ]
    assert queue.look().records["t1"].mutable.progress == b"last"


def test_a_claim_carries_at_most_a_mebibyte_of_payloads(queue: ScriptedQueue) -> None:
    body = layout.Immutable(payload=b"x" * 200 * KIB).pack()
    for n in range(12):
        queue.submit(NewTask(f"t{n:02}", body=body))
    turn = queue.turn(16)
    assert len(turn.claimed) == 5
    assert sum(len(body) for body, _ in turn.bodies) <= KIB * KIB
    assert (turn.left, queue.look().wake) == (7, 1)
    assert queue.look().fair[5]["default"][2] == 7
    assert [id for id, _ in queue.claim(16)] == [f"t{n:02}" for n in range(5, 10)]


def test_a_payload_above_the_bound_is_claimed_alone(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1", body=layout.Immutable(payload=b"x" * 1500 * KIB).pack()), NewTask("t2"))
    assert [id for id, _ in queue.claim(16)] == ["t1"]
    assert [id for id, _ in queue.claim(16)] == ["t2"]


@pytest.mark.parametrize("field", ["weight", "priority", "delay_ms", "due_at", "expires_in_ms"])
def test_a_task_that_cannot_be_stored_leaves_nothing_of_those_before_it(
    queue: ScriptedQueue, field: str
) -> None:
    """A record without a place would be answered as queued for ever, and never run."""
    bad: dict[str, Any] = {field: True}
    with pytest.raises(StoreRefused):
        queue.submit(NewTask("t1"), NewTask("t2", **bad))
    assert not queue.client.exists(queue.keys.mutable("t1"), queue.keys.immutable("t1"))
    assert queue.look().sets["all"] == {}


def test_promotion_goes_in_steps_of_fifty(queue: ScriptedQueue) -> None:
    queue.submit(*(NewTask(f"t{n:03}", delay_ms=10) for n in range(90)))
    queue.clock += 10
    assert queue.call("promote") == [50, 0]
    assert queue.call("promote") == [40, -1]


def test_a_turn_promotes_what_is_due_and_says_when_the_next_is(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("soon", delay_ms=10), NewTask("later", delay_ms=500))
    assert queue.turn(4).next_due == 10
    queue.clock += 10
    turn = queue.turn(4)
    assert [id for id, _ in turn.claimed] == ["soon"]
    assert turn.next_due == 490
    queue.cancel("later")
    assert queue.turn(4).next_due == -1


def test_retention_goes_by_age_and_by_number_in_bounded_steps(queue: ScriptedQueue) -> None:
    for n in range(30):
        queue.submit(NewTask(f"t{n:02}"))
        [(id, token)] = queue.claim()
        queue.complete(id, token)
        queue.clock += 1000
    assert queue.call("prune", "completed", 25_000, -1, 4) == [4, 26]
    assert queue.call("prune", "completed", 25_000, -1, 4) == [2, 24]
    assert queue.call("prune", "completed", -1, 20, 3) == [3, 21]
    assert queue.call("prune", "completed", -1, 20, 3) == [1, 20]
    assert queue.call("prune", "completed", 15_000, 18, 200) == [6, 14]
    assert queue.call("prune", "completed", -1, -1, 200) == [0, 14]
    assert queue.look().ordered("completed") == [f"t{n:02}" for n in range(16, 30)]


def test_stripping_takes_logs_and_results_of_the_oldest_and_ends(queue: ScriptedQueue) -> None:
    for n in range(5):
        queue.submit(NewTask(f"t{n}"))
        [(id, token)] = queue.claim()
        queue.note(id, token, b"", 0, 1, [line("x")])
        queue.complete(id, token)
        queue.clock += 1000
    assert [queue.call("strip", 2000, 2) for _ in range(3)] == [2, 2, 0]
    found = queue.look()
    assert [found.records[f"t{n}"].log is None for n in range(5)] == [True] * 4 + [False]
    assert {record.state for record in found.records.values()} == {"completed"}
    assert history(queue, "t0") == ([], [], None)
    assert history(queue, "t4")[2] == b"{}"


def test_the_events_of_a_life_are_told_in_order(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1", name="a.b", owner="me", delay_ms=5))
    queue.clock += 5
    [(_, token)] = queue.claim()
    queue.note("t1", token, b"{}", 1, 1, [line("x")])
    queue.retry_later("t1", token)
    [(_, token)] = queue.claim()
    queue.settle("release", "t1", token, "shutdown")
    [(_, token)] = queue.claim()
    queue.clock += LEASE_MS
    queue.rescue(("t1", token, True))
    queue.cancel("t1")
    queue.retry("t1")
    [(_, token)] = queue.claim()
    queue.fail("t1", token)
    stream: Any = queue.client.xrange(queue.keys.events)
    told = [fields[b"e"].decode().split("\x1f") for _, fields in stream]
    assert [event[0] for event in told] == list("sqtplyqtrtuxqtf")
    assert told[0] == ["s", "t1", "a.b", "me", "0", "pending", "delayed", ""]
    assert told[-1] == ["f", "t1", "a.b", "me", "3", "failed", "exhausted", ""]


def test_the_event_stream_is_trimmed(queue: ScriptedQueue) -> None:
    for start in range(0, 1000, 100):
        queue.submit(*(NewTask(f"t{n}") for n in range(start, start + 100)))
    assert 100 <= queue.client.xlen(queue.keys.events) < 300


@pytest.mark.parametrize(
    ("step", "now"), [(-1, 0), (-5000, 0), (-5001, -5001), (-3_600_000, -3_600_000), (7, 7)]
)
def test_a_small_step_back_of_the_clock_is_waited_out_and_a_large_one_taken(
    queue: ScriptedQueue, step: int, now: int
) -> None:
    queue.submit(NewTask("t1"))
    queue.clock += step
    queue.submit(NewTask("t2"))
    assert queue.look().records["t2"].mutable.created == START_MS + now


def test_leases_do_not_freeze_when_the_clock_steps_back_an_hour(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1"))
    [(_, token)] = queue.claim()
    queue.clock -= 3_600_000
    assert queue.renew(("t1", token)) == ["ok"]
    queue.clock += LEASE_MS
    assert queue.rescue(("t1", token, True)) == ["queued"]
    [(_, token)] = queue.claim()
    assert queue.complete("t1", token) == "ok"
    assert queue.look().records["t1"].mutable.wait == 0
    assert all(value >= 0 for value in queue.look().runs.values())


def test_a_step_forward_costs_who_renews_nothing(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1"))
    [(_, token)] = queue.claim()
    queue.clock += 3_600_000
    assert queue.renew(("t1", token)) == ["ok"]
    assert queue.rescue(("t1", token, True)) == [""]
    assert queue.complete("t1", token) == "ok"


def test_a_delay_of_ten_years_is_held_to_the_millisecond(queue: ScriptedQueue) -> None:
    ten_years = 3653 * 24 * 3600 * 1000
    queue.submit(NewTask("t1", delay_ms=ten_years), NewTask("t2", due_at=START_MS + ten_years + 1))
    assert queue.look().sets["pending"] == {"t1": START_MS + ten_years, "t2": START_MS + ten_years + 1}
    queue.clock += ten_years
    assert [id for id, _ in queue.claim(4)] == ["t1"]


def test_notes_of_many_tasks_travel_in_one_call(queue: ScriptedQueue) -> None:
    queue.submit(NewTask("t1"), NewTask("t2"))
    claimed = queue.claim(2)
    items = [pack([id, token, b"{}", 1, 1, [line(id)]]) for id, token in claimed]
    assert queue.call("note", *items, pack(["t3", "1.x-1", b"{}", 1, 1, []])) == ["ok", "ok", "lost"]
