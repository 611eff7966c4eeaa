"""What hooks send on travels with their message's end: into the outbox, and from there once."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest

from callboard.broker import outbox
from callboard.broker.broker import CallboardBroker
from callboard.errors import StoreUnavailable
from callboard.records.state import State
from callboard.storage.operation import Command
from tests.conformance.surroundings import worker
from tests.support.board import Board


class Pipe:
    """Two actors, and the first one's message in the hands of a consumer that delivers nothing."""

    def __init__(self, broker: CallboardBroker) -> None:
        self.broker = broker
        self.ran: list[int] = []

        @dramatiq.actor(queue_name="first")
        def first():
            return 20

        @dramatiq.actor(queue_name="second")
        def second(number=None):
            self.ran.append(number)

        self.pipeline = first.message() | second.message()
        self.pipeline.run()
        self.consumer: Any = broker.consume("first", timeout=1000)
        assert broker._guest is not None
        # Its maintenance, and the courier with it, stand still: as good as dead after the acknowledgement.
        broker._guest._loops.stop()
        self.message: Any = next(self.consumer)

    def process(self) -> None:
        """What a worker does with it, up to the acknowledgement."""
        self.broker.emit_before("process_message", self.message)
        self.broker.emit_after("process_message", self.message, result=20)

    def waiting(self) -> int:
        """Follow-ups that are not delivered."""
        keys = self.broker.keys.queue("first")
        return int(self.broker.connection.execute(Command("ZCARD", keys.outbox)))


@pytest.fixture
def pipe(redis_broker: CallboardBroker) -> Pipe:
    return Pipe(redis_broker)


@pytest.fixture
def board(redis_broker: CallboardBroker) -> Board:
    return Board(redis_broker.connection)


def size(board: Board) -> int:
    return board.size("second", *State)


def test_nothing_is_sent_before_the_end_is_recorded(pipe: Pipe, board: Board) -> None:
    pipe.process()
    assert (pipe.waiting(), size(board)) == (0, 0)
    pipe.consumer.ack(pipe.message)
    assert (pipe.waiting(), size(board)) == (1, 0)
    assert board.record(pipe.broker.task_id(pipe.pipeline.messages[0])).state == "completed"


def test_a_dead_workers_follow_ups_are_delivered_by_another(pipe: Pipe, board: Board, host: str) -> None:
    pipe.process()
    pipe.consumer.ack(pipe.message)
    heir = CallboardBroker(pipe.broker.connection.address.url, namespace=pipe.broker.keys.namespace)
    heir.actors.update(pipe.broker.actors)
    heir.declare_queue("first")
    heir.declare_queue("second")
    with worker(heir, worker_threads=2, worker_timeout=100):
        board.await_end([pipe.broker.task_id(pipe.pipeline.messages[1])], 20)
        heir.join("second", timeout=10_000)
        # Taken out of the outbox only after it has arrived, and may have run by then.
        heir.join("first", timeout=10_000)
    assert pipe.ran == [20]
    assert pipe.waiting() == 0
    heir.close()


def test_an_acknowledgement_that_is_sent_twice_sends_once(
    pipe: Pipe, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe.process()
    execute = pipe.broker.connection.execute

    def lossy(request: Any) -> Any:
        execute(request)
        raise StoreUnavailable("the reply was lost")

    with monkeypatch.context() as patch:
        patch.setattr(pipe.broker.connection, "execute", lossy)
        with pytest.raises(dramatiq.errors.ConnectionClosed):
            pipe.consumer.ack(pipe.message)
    pipe.consumer.ack(pipe.message)
    assert pipe.waiting() == 1


def test_a_delivery_that_is_made_twice_arrives_once(pipe: Pipe, board: Board) -> None:
    pipe.process()
    [follower] = pipe.message.followers
    body = outbox.pack(follower)
    for _ in range(2):
        pipe.broker.connection.run(outbox.deliver(pipe.broker.keys, body))
    assert size(board) == 1


def test_an_end_that_comes_too_late_sends_nothing(pipe: Pipe, board: Board) -> None:
    pipe.process()
    pipe.message.token = "9.forged-1"
    pipe.consumer.ack(pipe.message)
    assert (pipe.waiting(), size(board)) == (0, 0)


def test_a_failed_attempt_sends_its_follow_ups_with_the_retry(
    redis_broker: CallboardBroker, redis_worker: Any, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    @dramatiq.actor
    def failed(message_data, error):
        told.append(message_data["options"]["retries"])

    @dramatiq.actor(max_retries=2, min_backoff=1, max_backoff=1, on_failure="failed")
    def work():
        raise RuntimeError("no way")

    sent: list[Any] = []
    execute = redis_broker.connection.execute

    def seen(request: Any) -> Any:
        if getattr(getattr(request, "script", None), "name", "") == "submit":
            sent.append(request)
        return execute(request)

    monkeypatch.setattr(redis_broker.connection, "execute", seen)
    work.send()
    redis_broker.join("default", timeout=15_000)
    assert sorted(told) == [1, 2, 3]
    assert len(sent) == 1 + 3, "ours, and each by the courier, none by the hook itself"
