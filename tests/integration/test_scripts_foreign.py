"""Ids that another program gave: the same message enqueued twice, resent, or run again after it has ended."""

from __future__ import annotations

import pytest

from tests.support.scripted_queue import NewTask, ScriptedQueue


def enqueue(queue: ScriptedQueue, nonce: str, id: str = "m.1") -> tuple[str, str]:
    [reply] = queue.submit(NewTask(id, nonce=nonce))
    return reply


def run_next(queue: ScriptedQueue, *, fail: bool = False) -> str:
    [(id, token)] = queue.claim()
    assert (queue.fail if fail else queue.complete)(id, token) == "ok"
    return id


def test_a_message_enqueued_twice_while_it_lives_is_one_task(queue: ScriptedQueue) -> None:
    assert enqueue(queue, "a") == ("m.1", "queued")
    assert enqueue(queue, "b") == ("m.1", "queued")
    [(id, token)] = queue.claim(5)
    assert enqueue(queue, "c") == ("m.1", "running")
    assert queue.retry_later(id, token, 1000) == "ok"
    assert enqueue(queue, "d") == ("m.1", "pending")
    assert queue.look().sets["all"].keys() == {"m.1"}


def test_a_message_that_has_ended_runs_again_under_the_next_number(queue: ScriptedQueue) -> None:
    enqueue(queue, "a")
    run_next(queue)
    assert enqueue(queue, "b") == ("m.1~2", "queued")
    assert enqueue(queue, "c") == ("m.1~2", "queued")
    assert run_next(queue) == "m.1~2"
    assert enqueue(queue, "c") == ("m.1~3", "queued")
    assert run_next(queue, fail=True) == "m.1~3"
    assert {id: record.state for id, record in queue.look().records.items()} == {
        "m.1": "completed",
        "m.1~2": "completed",
        "m.1~3": "failed",
    }


def test_a_resend_is_no_new_run_even_when_the_task_has_ended(queue: ScriptedQueue) -> None:
    enqueue(queue, "a")
    run_next(queue)
    assert enqueue(queue, "a") == ("m.1", "completed")
    assert enqueue(queue, "b") == ("m.1~2", "queued")
    run_next(queue)
    assert enqueue(queue, "b") == ("m.1~2", "completed")
    assert enqueue(queue, "a") == ("m.1", "completed")
    assert len(queue.look().sets["all"]) == 2


def test_two_enqueues_of_an_ended_message_in_one_call(queue: ScriptedQueue) -> None:
    enqueue(queue, "a")
    run_next(queue)
    replies = queue.submit(NewTask("m.1", nonce="b"), NewTask("m.1", nonce="c"), NewTask("m.1", nonce="b"))
    assert replies == [("m.1~2", "queued")] * 3


def test_an_id_given_like_the_next_run_of_another_in_the_same_call(queue: ScriptedQueue) -> None:
    """Both once had their place and one record: the later body took the place of the earlier one."""
    enqueue(queue, "a")
    run_next(queue)
    replies = queue.submit(NewTask("m.1", nonce="b", key="k"), NewTask("m.1~2", nonce="c", key="k"))
    assert replies == [("m.1~2", "queued"), ("m.1~2", "queued")]
    look = queue.look()
    assert look.records["m.1~2"].mutable.nonce == b"b"
    assert {key: n for key, (_, _, n) in look.fair[5].items()} == {"k": 1}


def test_an_enqueue_that_is_refused_for_the_depth_counts_no_run(queue: ScriptedQueue) -> None:
    enqueue(queue, "a")
    run_next(queue)
    queue.submit(NewTask("other"))
    for _ in range(3):
        assert queue.submit(NewTask("m.1", nonce="b"), depth=1) == [("m.1~2", "full")]
    assert enqueue(queue, "b") == ("m.1~2", "queued")


def test_a_deleted_message_stays_deleted_for_its_resend_and_is_free_for_the_next_enqueue(
    queue: ScriptedQueue,
) -> None:
    enqueue(queue, "a")
    run_next(queue)
    assert queue.delete("m.1") == ("ok", "completed")
    assert enqueue(queue, "a") == ("m.1", "deleted")
    assert queue.look().sets["all"] == {}
    assert enqueue(queue, "b") == ("m.1", "queued")
    assert run_next(queue) == "m.1"


def test_a_deleted_second_run_stays_deleted_for_its_resend(queue: ScriptedQueue) -> None:
    enqueue(queue, "a")
    run_next(queue)
    enqueue(queue, "b")
    run_next(queue)
    assert queue.delete("m.1~2") == ("ok", "completed")
    assert enqueue(queue, "b") == ("m.1~2", "deleted")
    assert enqueue(queue, "c") == ("m.1~3", "queued")


@pytest.mark.parametrize("how", ["delete", "prune"])
def test_runs_of_an_earlier_first_one_are_never_written_over(queue: ScriptedQueue, how: str) -> None:
    enqueue(queue, "a")
    run_next(queue)
    enqueue(queue, "b")
    [(second, token)] = queue.claim()
    assert second == "m.1~2"  # it runs on, while the first is dropped
    if how == "delete":
        assert queue.delete("m.1") == ("ok", "completed")
    else:
        assert queue.call("prune", "completed", -1, 0, 10) == [1, 0]
    # It lives, so neither another enqueue nor a resend of its own is a new run.
    assert enqueue(queue, "c") == ("m.1~2", "running")
    assert enqueue(queue, "b") == ("m.1~2", "running")
    assert queue.complete(second, token) == "ok"
    assert enqueue(queue, "b") == ("m.1~2", "completed")
    assert enqueue(queue, "c") == ("m.1", "queued")
    run_next(queue)
    assert enqueue(queue, "d") == ("m.1~3", "queued")
    found = queue.look()
    assert found.records["m.1~2"].state == "completed"
    assert enqueue(queue, "d") == ("m.1~3", "queued")


def test_where_the_last_run_is_found_goes_with_it(queue: ScriptedQueue) -> None:
    enqueue(queue, "a")
    run_next(queue)
    enqueue(queue, "b")
    run_next(queue)
    last_run = queue.keys.last_run("m.1")
    assert queue.delete("m.1") == ("ok", "completed")
    assert queue.client.ttl(last_run) == -1
    assert queue.delete("m.1~2") == ("ok", "completed")
    assert 0 < queue.client.ttl(last_run) <= 60
    # For so long a resend is known by it, and another enqueue begins at the first again.
    assert enqueue(queue, "b") == ("m.1~2", "deleted")
    assert enqueue(queue, "c") == ("m.1", "queued")


def test_many_leftover_runs_are_passed_in_bounded_steps(queue: ScriptedQueue) -> None:
    enqueue(queue, "a")
    run_next(queue)
    queue.submit(*(NewTask(f"m.1~{n}") for n in range(2, 90)))
    queue.submit(*(NewTask(f"m.1~{n}") for n in range(90, 150)))
    id, state = enqueue(queue, "b")
    assert state == "queued"
    assert id not in {f"m.1~{n}" for n in range(150)}
    assert len(queue.look().sets["queued"]) == 149
    assert enqueue(queue, "b") == (id, "queued")


def test_a_first_run_that_was_retried_by_hand_is_a_live_twin(queue: ScriptedQueue) -> None:
    enqueue(queue, "a")
    run_next(queue, fail=True)
    enqueue(queue, "b")
    run_next(queue)
    assert queue.retry("m.1") == ("ok", "queued")
    assert enqueue(queue, "c") == ("m.1", "queued")
    assert enqueue(queue, "b") == ("m.1~2", "completed")


def test_an_own_id_needs_no_nonce(queue: ScriptedQueue) -> None:
    assert queue.submit(NewTask("t1")) == [("t1", "queued")]
    run_next(queue)
    assert queue.submit(NewTask("t1")) == [("t1", "completed")]
    assert queue.delete("t1") == ("ok", "completed")
    assert queue.delete("t1") == ("ok", "")
    assert queue.submit(NewTask("t1")) == [("t1", "deleted")]
    ttl = queue.client.pttl(queue.keys.prefix + "t:t1")
    assert 0 < ttl <= 60_000
