"""From a submit to a record through a real worker: how bodies of each form end, and what is told of it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import dramatiq
import pytest

from callboard import control, inspector
from callboard.catalog import presence, published
from callboard.records import log
from callboard.records.state import State
from callboard.storage.operation import Command
from callboard.submit import Submission
from tests.support.board import Board
from tests.support.outcomes import BLOCKING, FORMS, lines, outcomes, run, started
from tests.support.waiting import wait_until
from tests.support.worker_bodies import actor
from tests.support.worker_process import ServiceProcess, children_of, lives

# How they end by themselves.


@pytest.mark.parametrize("name", ["box.tell", "thread.tell", "coro.tell", "box.atell", "thread.atell"])
def test_a_body_has_what_it_needs_and_its_record_says_so(
    board: Board, worker: ServiceProcess, name: str
) -> None:
    record = run(board, name, {"text": "grüße"}, owner="team", tags=["a"], priority=3)
    assert record.state is State.COMPLETED
    assert record.reason is None
    assert record.result["text"] == "grüße"
    assert record.result["id"] == record.id
    assert (record.result["pid"] == worker.pid) == (not name.startswith("box"))
    assert outcomes(record) == ["completed"]
    assert record.worker == worker.id
    assert record.progress == {"current": 1, "total": 2, "percent": 50.0, "message": "grüße"}
    assert lines(board, record.id) == ["printed grüße", "logged grüße"]
    assert record.created_at <= (record.started_at or 0) <= (record.finished_at or 0)
    assert record.wait_ms is not None
    assert (record.owner, record.tags, record.priority) == ("team", ("a",), 3)


@pytest.mark.parametrize("form", BLOCKING)
@pytest.mark.parametrize(
    ("how", "reason", "error", "attempts"),
    [
        ("trouble", "exhausted", "Trouble", ["failed", "failed"]),
        ("discard", "permanent", "Discard", ["failed"]),
        ("final", "permanent", "Final", ["failed"]),
        ("exit", "exhausted", "SystemExit", ["failed", "failed"]),
        ("retry", "exhausted", "Retry", ["failed", "failed"]),
    ],
)
def test_a_failure_is_told_with_its_cause(
    board: Board, form: str, how: str, reason: str, error: str, attempts: list[str]
) -> None:
    record = run(board, f"{form}.fail", {"how": how}, max_attempts=2)
    assert (record.state, record.reason) == (State.FAILED, reason)
    assert record.error is not None
    assert record.error["type"] == error
    assert "worker_bodies.py" in record.error["traceback"]
    assert record.error["retryable"] == (reason != "permanent")
    assert outcomes(record) == attempts


@pytest.mark.parametrize("form", BLOCKING)
def test_a_body_that_fails_twice_completes_in_its_third_attempt(board: Board, form: str) -> None:
    record = run(board, f"{form}.fail", {"times": 2}, max_attempts=4)
    assert (record.state, record.result, record.attempt) == (State.COMPLETED, 3, 3)
    assert outcomes(record) == ["failed", "failed", "completed"]


@pytest.mark.parametrize("form", BLOCKING)
def test_a_snooze_spends_no_attempt(board: Board, form: str) -> None:
    record = run(board, f"{form}.snooze", {"until": time.time() + 0.5}, max_attempts=1)
    assert (record.state, record.result, record.attempt) == (State.COMPLETED, 1, 1)
    assert {stop.cause for stop in record.interruptions} == {"not yet"}


@pytest.mark.parametrize("form", BLOCKING)
def test_a_flood_is_cut_and_counted_and_the_task_completes(board: Board, form: str) -> None:
    record = run(board, f"{form}.flood", {"lines": 5000})
    assert record.result == "flooded"
    told = lines(board, record.id)
    assert len(told) == 1000
    assert record.log_lines > 1000
    page = board.run(log.logs(board.keys, record.id))
    assert page.dropped == record.log_lines - 1000
    assert record.progress is not None
    assert record.progress["current"] == 4999


# Limits.


@pytest.mark.parametrize("form", FORMS)
def test_the_soft_limit_lets_a_body_tidy_up(board: Board, form: str) -> None:
    record = run(board, f"{form}.soft", {"seconds": 30}, max_attempts=1)
    assert (record.state, record.reason) == (State.FAILED, "timeout")
    assert record.error is not None
    assert record.error["type"] == "SoftLimitExceeded"
    assert "0.8 s" in record.error["message"]
    assert outcomes(record) == ["timeout"]
    assert any("tidied" in line for line in lines(board, record.id))


@pytest.mark.parametrize("form", FORMS)
def test_the_hard_limit_ends_what_heeds_nothing_and_the_attempt_is_spent(board: Board, form: str) -> None:
    record = run(board, f"{form}.stubborn", {"seconds": 4}, max_attempts=2)
    assert (record.state, record.reason) == (State.FAILED, "timeout")
    assert record.error is not None
    assert record.error["type"] == "HardLimitExceeded"
    assert outcomes(record) == ["timeout", "timeout"]


def test_memory_beyond_its_limit_ends_the_body_alone(board: Board) -> None:
    [beside] = board.submit("box.nap", payload={"seconds": 2})
    record = run(board, "box.grow", max_attempts=1)
    assert (record.state, record.reason) == (State.FAILED, "memory")
    assert outcomes(record) == ["memory"]
    assert board.await_end([beside])[0].state is State.COMPLETED


@pytest.mark.parametrize("how", ["exit", "segfault", "kill", "close"])
def test_a_child_that_dies_is_a_failed_attempt_with_its_cause(board: Board, how: str) -> None:
    [beside] = board.submit("box.nap", payload={"seconds": 1})
    record = run(board, "box.crash", {"how": how}, max_attempts=2)
    assert (record.state, record.reason) == (State.FAILED, "crashed")
    assert outcomes(record) == ["crashed", "crashed"]
    assert record.error is not None
    assert record.error["type"] == "ProcessCrashed"
    assert board.await_end([beside])[0].state is State.COMPLETED


def test_what_a_body_leaves_in_its_process_harms_no_other(board: Board) -> None:
    for _ in range(2):
        assert run(board, "box.vandal").result == "done"
    for record in board.await_end(board.submit("box.tell", 8)):
        assert record.state is State.COMPLETED


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_that_a_body_forked_is_no_second_worker(
    board: Board, worker: ServiceProcess, form: str
) -> None:
    """It would hold the worker's ports after it, and the event loop's selector beside it."""
    board.await_end(board.submit(f"{form}.tell", 8))
    before = children_of(worker.pid)
    record = run(board, f"{form}.twin")
    assert (record.state, record.result) == (State.COMPLETED, "parent")
    wait_until(lambda: not any(map(lives, children_of(worker.pid) - before)), 30, "the end of the copy")
    assert run(board, f"{form}.tell").state is State.COMPLETED


# The loop.


def test_a_thousand_sleepers_share_one_loop(board: Board) -> None:
    """Claimed by turns of 64 at most, together on the loop, each with its own end."""
    tasks = board.submit("coro.nap", 1000, payload={"seconds": 6})
    records = board.await_end(tasks, 60)
    assert {record.state for record in records} == {State.COMPLETED}
    spans = [(record.started_at, record.finished_at) for record in records]
    assert max(at or 0 for at, _ in spans) < min(at or 0 for _, at in spans), "all slept at one time"


# What others see of the worker.


def test_the_presence_says_what_the_worker_does(board: Board, worker: ServiceProcess) -> None:
    [task] = board.submit("box.nap", payload={"seconds": 60})
    started(board, task)
    [shown] = wait_until(
        lambda: [one for one in board.run(presence.read(board.keys)) if task in [t["id"] for t in one.tasks]],
        20,
        "the task in it",
    )
    board.cancel(task)
    assert shown.id == worker.id
    assert shown.pid == worker.pid
    assert shown.id.startswith(f"{shown.host}-")
    assert {"box", "thread", "coro", "callboard"} <= set(shown.queues)
    assert (shown.slots, shown.busy) == (4 + 1000, 1)
    assert shown.used("box") == (1, 4)
    assert shown.used("coro") == (0, 1000)
    [running] = shown.tasks
    assert (running["id"], running["name"], running["queue"]) == (task, "box.nap", "box")
    assert (running["attempt"], shown.draining) == (1, False)
    assert running["started_at"] >= shown.since
    assert shown.version
    resident = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert 0.5 < shown.memory_bytes / resident < 1.5
    assert json.dumps(shown.to_json())
    board.await_end([task])


def test_the_catalog_has_every_task_with_the_limits_that_hold(board: Board) -> None:
    catalog = board.run(published.read(board.keys))
    assert {"box.tell", "thread.tell", "coro.tell", "thread.actor", "callboard.ping"} <= set(catalog.tasks)
    plain, hurried = catalog.tasks["box.tell"].terms, catalog.tasks["box.stubborn"].terms
    assert (plain.soft_limit_ms, plain.hard_limit_ms, plain.retries) == (540_000, 600_000, 1)
    assert (hurried.soft_limit_ms, hurried.hard_limit_ms, hurried.retries) == (600, 900, 1)
    assert catalog.tasks["box.grow"].terms.memory_limit_bytes == 96 * 1024**2
    assert catalog.tasks["box.nap"].schema["required"] == ["seconds"]
    assert catalog.queues["coro"].isolation == "loop"
    assert catalog.queues["coro"].slots == 1000


# Names and records that it cannot take.


def test_an_unknown_name_backs_off_without_an_attempt(board: Board, worker: ServiceProcess) -> None:
    [task] = board.submit("box.nobody_knows", queue="box")
    # In one look: it is tried again soon.
    record = wait_until(
        lambda: found if (found := board.record(task)).state is State.PENDING else None, 20, "its back-off"
    )
    assert (record.reason, record.attempt, record.worker, record.attempts) == ("backoff", 0, None, ())
    wait_until(lambda: board.record(task).due_at != record.due_at, 20, "its second back-off")
    assert board.record(task).attempt == 0
    board.cancel(task)
    assert run(board, "box.tell").state is State.COMPLETED


def test_an_undecodable_record_fails_with_the_cause_and_once(board: Board) -> None:
    queue = board.keys.queue("box")
    board.run(control.pause(board.keys, "box"))
    bad, badder, good = board.submit("box.tell", 3)
    key = queue.mutable(bad.removeprefix("box_"))
    board.connection.execute(Command("SET", key, b"\x01garbage"))
    key = queue.immutable(badder.removeprefix("box_"))
    board.connection.execute(Command("SET", key, b"\x07of a later version"))
    board.run(control.resume(board.keys, "box"))
    for record in board.await_end([bad, badder]):
        assert (record.state, record.reason) == (State.FAILED, "permanent")
        assert record.error is not None
        assert record.error["type"] == "UndecodableRecord"
    assert board.await_end([good])[0].state is State.COMPLETED


def test_a_payload_that_does_not_fit_fails_for_good(board: Board) -> None:
    """Submitted before the signature changed, say."""
    for payload in ({"seconds": "no number"}, {"unknown": 1}, b"[1]", b"{{"):
        record = run(board, "box.nap", payload)
        assert (record.state, record.reason) == (State.FAILED, "permanent")
        assert record.error is not None
        assert record.error["type"] == "InvalidPayload"


def test_a_message_of_dramatiq_runs_beside_tasks(board: Board) -> None:
    good, bad = actor.message("hi"), actor.message("fail")
    ids = [f"thread_{message.message_id}" for message in (good, bad)]
    board.send(
        [
            Submission(
                name="thread.actor", queue="thread", message=message.encode(), task_id=task, max_attempts=2
            )
            for message, task in zip((good, bad), ids, strict=True)
        ]
    )
    completed, failed = board.await_end(ids)
    assert completed.state is State.COMPLETED
    assert (failed.state, failed.reason) == (State.FAILED, "exhausted")
    assert outcomes(failed) == ["failed", "failed"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "hook", ["", "before_process_message", "after_process_message", "before_ack", "after_ack"]
)
def test_a_hook_that_exits_hides_no_end(board: Board, form: str, hook: str) -> None:
    """Actors of every form, an `async def` on the loop among them; sys.exit in a hook ends nothing else."""
    message: dramatiq.Message[str] = dramatiq.Message(
        queue_name=form, actor_name=f"{form}.actor", args=("hi",), kwargs={}, options={"hostile": hook}
    )
    submission = Submission(name=message.actor_name, queue=form, message=message.encode(), max_attempts=1)
    [record] = board.await_end(board.send([submission]), 20)
    # What runs in the thread of its hooks is ended by them; elsewhere they only end themselves.
    ended = hook == "before_process_message" or (form == "thread" and hook not in ("", "after_ack"))
    assert record.state is (State.FAILED if ended else State.COMPLETED)


def test_a_paused_queue_lets_the_running_end_and_claims_nothing(board: Board) -> None:
    [running] = board.submit("box.nap", payload={"seconds": 1})
    started(board, running)
    board.run(control.pause(board.keys, "box"))
    [waiting] = board.submit("box.tell")
    assert board.await_end([running])[0].state is State.COMPLETED
    [elsewhere] = board.submit("thread.tell", delay_ms=300)
    board.await_end([elsewhere])
    assert board.state(waiting) is State.QUEUED
    board.run(control.resume(board.keys, "box"))
    assert board.await_end([waiting])[0].state is State.COMPLETED


def test_a_queue_that_is_resumed_wakes_its_workers(board: Board) -> None:
    """They do not come by chance, as every two seconds; a machine that is busy may hide that now and then."""

    def seconds_after_the_resume() -> float:
        board.run(control.pause(board.keys, "box"))
        [task] = board.submit("box.tell")
        [elsewhere] = board.submit("thread.tell")
        board.await_end([elsewhere])
        board.run(control.resume(board.keys, "box"))
        begun = time.monotonic()
        wait_until(lambda: board.state(task) is State.COMPLETED)
        return time.monotonic() - begun

    assert any(seconds_after_the_resume() < 0.3 for _ in range(4))


def test_the_queues_view_counts_what_stands(board: Board) -> None:
    view = board.run(inspector.queue(board.keys, "box"))
    assert view is not None
    assert (view.workers, view.slots_total) == (1, 4)
    view = board.run(inspector.queue(board.keys, "coro"))
    assert view is not None
    assert view.slots_total == 1000
