"""What Dramatiq's tests of RedisBroker ask of its keys and its commands, asked of our records."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq import Message, Middleware
from dramatiq.middleware import CurrentMessage

from callboard.broker.broker import CallboardBroker
from callboard.errors import StoreUnavailable
from callboard.maintenance.policy import Policy
from callboard.maintenance.pruner import Pruner
from callboard.records.record import TaskRecord
from callboard.storage.connection import Connection
from callboard.storage.operation import ScriptCall
from tests.conformance.surroundings import worker
from tests.support.board import Board
from tests.support.waiting import wait_until


@pytest.fixture
def board(redis_broker: CallboardBroker) -> Board:
    return Board(redis_broker.connection)


@pytest.fixture
def record(redis_broker: CallboardBroker, board: Board) -> Callable[[Any], TaskRecord]:
    """The record of a message."""
    return lambda message: board.record(redis_broker.task_id(message))


def size(board: Board, state: str) -> int:
    return board.size("default", state)  # type: ignore[arg-type]


HOARDER = """
import sys, time
from callboard.broker.broker import CallboardBroker

taken = CallboardBroker(sys.argv[1], namespace=sys.argv[2]).consume("default", prefetch=100, timeout=200)
for _ in range(100):
    assert next(taken) is not None
assert next(taken) is None, "more than the prefetch was taken"
print("full", flush=True)
time.sleep(600)  # with all of them in hand, until it is killed
"""


def test_what_a_dead_consumer_held_is_queued_again(
    redis_broker: CallboardBroker,
    redis_url: str,
    namespace: str,
    board: Board,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Renewed every quarter of it, by processes that have others beside them.
    monkeypatch.setenv("CALLBOARD_WORKER_LEASE_SECONDS", "3")
    runs: list[int] = []

    @dramatiq.actor
    def note(number):
        runs.append(number)

    messages = [note.send(number) for number in range(120)]
    command = [sys.executable, "-c", HOARDER, redis_url, namespace]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as hoarder:
        assert hoarder.stdout is not None
        assert hoarder.stdout.readline() == b"full\n"
        assert size(board, "running") == 100
        hoarder.kill()

    survivor = dramatiq.Worker(redis_broker, worker_threads=4, worker_timeout=100)
    survivor.start()
    try:
        redis_broker.join("default", timeout=20_000)
    finally:
        survivor.stop()
    assert sorted(runs) == list(range(120))
    assert size(board, "completed") == 120
    lost = [m for m in messages if board.record(redis_broker.task_id(m)).attempt == 2]
    assert len(lost) == 100


def test_a_message_that_fails_for_good_is_kept(redis_broker, redis_worker, record) -> None:
    @dramatiq.actor(max_retries=0)
    def fail():
        raise RuntimeError("no way")

    message = fail.send()
    redis_broker.join("default", timeout=10_000)
    kept = record(message)
    assert (kept.state, kept.reason, kept.attempt) == ("failed", "exhausted", 1)
    assert (kept.error["type"], kept.error["message"]) == ("RuntimeError", "no way")
    assert "raise RuntimeError" in kept.error["traceback"]


def test_failed_messages_are_pruned(redis_broker, redis_worker, board) -> None:
    @dramatiq.actor(max_retries=0)
    def fail():
        raise RuntimeError("no way")

    for _ in range(250):
        fail.send()
    redis_broker.join("default", timeout=30_000)
    redis_worker.join()
    assert size(board, "failed") == 250
    pruned = Pruner(lambda _: Policy(failed_count=10)).run_once(redis_broker.connection, "default")
    assert pruned.dropped == {"count": 240}
    assert size(board, "failed") == 10
    assert board.faults() == []


def test_a_message_for_an_unknown_actor(host, redis_broker, redis_worker, record) -> None:
    @dramatiq.actor
    def known():
        pass

    message: Message[Any] = Message(
        queue_name="default", actor_name="newcomer", args=(), kwargs={}, options={}
    )
    redis_broker.enqueue(message)
    if host == "worker":
        redis_broker.join("default", timeout=10_000)
        assert record(message).state == "failed"
        assert record(message).reason == "permanent"
        assert record(message).error["type"] == "ActorNotFound"
        return
    # In one look: it is tried again every few seconds.
    waiting = wait_until(lambda: (kept := record(message)).reason == "backoff" and kept, 10)
    assert (waiting.state, waiting.attempt) == ("pending", 0)

    @dramatiq.actor
    def newcomer():
        return "here"

    wait_until(lambda: record(message).state == "completed", 20)
    assert (record(message).attempt, record(message).result) == (1, "here")


def test_a_stopped_worker_gives_back_what_it_has_not_started(redis_broker, board) -> None:
    running, stopping = threading.Event(), threading.Event()

    class Bell(Middleware):
        def before_worker_shutdown(self, broker, worker):
            stopping.set()

    redis_broker.add_middleware(Bell())

    @dramatiq.actor
    def linger():
        running.set()
        assert stopping.wait(10)

    for _ in range(4):
        linger.send()
    with worker(redis_broker, worker_threads=1, worker_timeout=100):
        assert running.wait(10)
    assert (size(board, "completed"), size(board, "queued"), size(board, "running")) == (1, 3, 0)
    queued = redis_broker.connection.client.zrange(redis_broker.keys.queue("default").state("queued"), 0, -1)
    assert {board.record(f"default_{local.decode()}").attempt for local in queued} == {0}
    assert board.faults() == []


def test_delayed_messages_never_leave_redis(redis_broker, record) -> None:
    @dramatiq.actor
    def late():
        pass

    message = late.send_with_options(delay=60_000)
    with worker(redis_broker, worker_threads=1, worker_timeout=100) as started:
        # Something else goes through, so the worker has looked.
        soon = late.send()
        wait_until(lambda: record(soon).state == "completed", 10)
        assert record(message).state == "pending"
        assert started is not None
    kept = record(message)
    assert (kept.state, kept.reason, kept.attempt) == ("pending", "delayed", 0)
    assert 59_000 <= kept.due_at - kept.created_at <= 60_000


def test_a_broker_connects_by_url(redis_url: str) -> None:
    broker = CallboardBroker(redis_url)
    assert broker.connection.client.ping()
    broker.close()


def test_a_broker_takes_a_connection(redis_url: str) -> None:
    connection = Connection(redis_url, namespace="mine")
    broker = CallboardBroker(connection=connection)
    assert broker.connection is connection
    assert broker.keys is connection.keys
    broker.close()
    assert connection.client.ping(), "it belongs to who made it"
    connection.close()


@pytest.mark.parametrize("lost", ["request", "reply"])
@pytest.mark.parametrize("good", [True, False], ids=["ack", "nack"])
def test_an_acknowledgement_survives_a_connection_error(
    redis_broker, redis_worker, record, monkeypatch, good, lost
) -> None:
    monkeypatch.setattr("dramatiq.worker.POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.05)
    faults: list[str] = []
    execute = redis_broker.connection.execute

    def faulty(request):
        ends = isinstance(request, ScriptCall) and request.script.name == "turn" and len(request.args) > 4
        if not ends or len(faults) == 3:
            return execute(request)
        faults.append(lost)
        if lost == "reply":
            execute(request)
        raise StoreUnavailable("gone")

    monkeypatch.setattr(redis_broker.connection, "execute", faulty)
    runs: list[int] = []

    @dramatiq.actor(max_retries=0)
    def work():
        runs.append(1)
        if not good:
            raise RuntimeError("no way")

    message = work.send()
    redis_broker.join("default", timeout=20_000)
    redis_worker.join()
    assert faults == [lost] * 3
    assert runs == [1]
    assert record(message).state == ("completed" if good else "failed")
    assert record(message).attempt == 1


def test_join_waits_for_what_messages_send(redis_broker, redis_worker) -> None:
    runs: list[str] = []

    @dramatiq.actor
    def first():
        runs.append("first")
        later.send_with_options(delay=300)

    @dramatiq.actor
    def later():
        runs.append("later")

    @dramatiq.actor
    def after(message_data, result):
        runs.append("after")

    first.send_with_options(on_success=after)
    redis_broker.join("default", timeout=10_000)
    assert sorted(runs) == ["after", "first", "later"]


def test_a_returned_value_is_in_the_record(redis_broker, redis_worker, record) -> None:
    @dramatiq.actor
    def give(thing):
        return thing

    values = [42, None, [1, {"a": "ü"}], "text", False]
    messages = [give.send(value) for value in values]
    redis_broker.join("default", timeout=10_000)
    assert [record(message).result for message in messages] == values
    assert {record(message).state for message in messages} == {"completed"}


def test_a_worker_holds_no_more_than_it_can_start(redis_broker, board) -> None:
    running, go_on = threading.Event(), threading.Event()

    @dramatiq.actor
    def linger():
        running.set()
        assert go_on.wait(10)

    with worker(redis_broker, worker_threads=2, worker_timeout=100) as started:
        for _ in range(10):
            linger.send()
        assert running.wait(10)
        prefetch = getattr(started, "queue_prefetch", 2)
        wait_until(lambda: size(board, "running") == prefetch, 5)
        assert size(board, "queued") == 10 - prefetch
        go_on.set()
        redis_broker.join("default", timeout=10_000)
    assert board.faults() == []


def test_an_actor_runs_what_was_submitted_by_name(redis_broker, redis_worker, board) -> None:
    """Over HTTP there is no message, only a payload: it becomes the actor's arguments, retries included."""
    ages: list[int] = []

    @dramatiq.actor(max_retries=2, min_backoff=1, max_backoff=1)
    def work(x, y=1):
        message = CurrentMessage.get_current_message()
        assert message is not None
        ages.append(message.options.get("retries", 0))
        if len(ages) < 3:
            raise RuntimeError("not yet")
        return x + y

    redis_broker.add_middleware(CurrentMessage())
    [task_id] = board.submit("work", payload={"x": 20, "y": 22}, queue="default")
    [record] = board.await_end([task_id], 20)
    assert (record.state, record.result, record.attempt) == ("completed", 42, 3)
    assert ages == [0, 1, 2]
    assert record.payload == {"x": 20, "y": 22}
