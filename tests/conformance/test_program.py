"""An unchanged Dramatiq program in real processes: on our worker's process slots, and on Dramatiq's CLI."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from dramatiq import group

from callboard.records.record import TaskRecord
from tests.conformance.processes import Hosts, Running, imported
from tests.support.waiting import wait_until


@pytest.fixture(scope="module", params=["serve", "cli"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def hosts(kind: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    made = Hosts(tmp_path_factory.mktemp(kind), redis_url, f"p{uuid.uuid4().hex[:10]}")
    yield made
    made.close()


@pytest.fixture(scope="module")
def program(hosts: Hosts) -> Iterator[Any]:
    """The program, imported here to send its messages."""
    with imported(hosts) as module:
        yield module


@pytest.fixture
def worker(kind: str, hosts: Hosts, program: Any) -> Running:
    """The running worker; asks for what lets it be imported too.

    One for all tests, unless the one that ends it is not the last: a process that is out of tests takes some
    from others, from wherever they stand in the module.
    """
    return hosts.alive() or hosts.start(kind)


class Sent:
    """What became of messages."""

    def __init__(self, hosts: Hosts, program: Any) -> None:
        self.hosts, self.program = hosts, program

    def end(self, message: Any, timeout: float = 30) -> TaskRecord:
        """The record once it has ended."""
        task_id = self.program.broker.task_id(message)
        [record] = self.hosts.board.await_end([task_id], timeout)
        return record

    def state(self, message: Any) -> str:
        return str(self.hosts.board.state(self.program.broker.task_id(message)))


@pytest.fixture
def sent(worker: Running, hosts: Hosts, program: Any) -> Sent:
    return Sent(hosts, program)


def test_results_are_in_the_record_and_in_dramatiqs_backend(sent: Sent, program: Any) -> None:
    message = program.add.send(1, y=2)
    record = sent.end(message)
    assert (record.state, record.result, record.attempt) == ("completed", 3, 1)
    assert record.payload == {"args": [1], "kwargs": {"y": 2}}
    assert message.get_result(block=True, timeout=5000) == 3


def test_a_delayed_message_waits_in_redis(sent: Sent, program: Any) -> None:
    message = program.add.send_with_options(args=(1, 2), delay=700)
    record = sent.end(message)
    assert record.due_at is not None
    assert record.started_at is not None
    assert record.due_at - record.created_at == 700
    assert 0 <= record.started_at - record.due_at < 10_000


def test_retries_until_it_works(sent: Sent, program: Any) -> None:
    record = sent.end(program.flaky.send("flaky", 2))
    assert (record.state, record.result, record.attempt) == ("completed", "at last", 3)
    assert [attempt.error["message"] for attempt in record.attempts if attempt.error] == [
        "flaky does not work yet"
    ] * 2
    assert program.traces().count("flaky") == 3


def test_max_retries_zero_fails_at_once(sent: Sent, program: Any) -> None:
    record = sent.end(program.hopeless.send())
    assert (record.state, record.reason, record.attempt, record.max_attempts) == ("failed", "exhausted", 1, 1)
    assert record.error is not None
    assert (record.error["type"], record.error["message"]) == ("LookupError", "never")
    assert "in hopeless" in record.error["traceback"]


def test_throws_is_not_retried(sent: Sent, program: Any) -> None:
    record = sent.end(program.expected.send())
    assert (record.state, record.reason, record.attempt) == ("failed", "permanent", 1)


def test_on_retry_exhausted(sent: Sent, program: Any) -> None:
    assert sent.end(program.gives_up.send("spent")).attempt == 2
    wait_until(lambda: "exhausted-spent-1-True" in program.traces(), 20, "the one who is told")


def test_retry_when_sees_the_exception_itself(sent: Sent, program: Any) -> None:
    record = sent.end(program.choosy.send("choosy"))
    assert program.traces().count("choosy") == 3
    assert (record.state, record.attempt, record.max_attempts) == ("failed", 3, None)


def test_callbacks(sent: Sent, program: Any) -> None:
    program.add.send_with_options(args=(20, 22), on_success="succeeded")
    program.gives_up.send_with_options(args=("twice",), on_failure="failed")
    wait_until(lambda: "succeeded-20-42" in program.traces(), 20, "on_success")
    told = "failed-twice-LookupError-twice"
    wait_until(lambda: program.traces().count(told) == 2, 20, "on_failure, at each attempt")


def test_a_pipeline_over_queues(sent: Sent, program: Any) -> None:
    pipe = program.add.message(1, 2) | program.double.message() | program.double.message()
    pipe.run()
    assert pipe.get_result(block=True, timeout=20_000) == 12
    assert list(pipe.get_results()) == [3, 6, 12]
    assert [sent.end(message).result for message in pipe.messages] == [3, 6, 12]


def test_a_group_with_a_completion_callback(sent: Sent, program: Any) -> None:
    members = group([program.add.message(n, 1) for n in range(6)])
    members.add_completion_callback(program.finale.message("all-six"))
    members.run()
    assert list(members.get_results(block=True, timeout=20_000)) == [1, 2, 3, 4, 5, 6]
    wait_until(lambda: "all-six" in program.traces(), 20, "the completion callback")
    assert program.traces().count("all-six") == 1


def test_the_current_message_and_the_boot_of_its_process(sent: Sent, program: Any) -> None:
    message = program.who.send()
    assert sent.end(message).result == [message.message_id, True]


def test_a_body_may_send_its_own_message_again(sent: Sent, program: Any) -> None:
    program.several.send("several", 3)
    wait_until(lambda: program.traces().count("several") == 3, 20, "three runs")
    program.broker.join("program", timeout=20_000)
    assert program.traces().count("several") == 3


def test_priorities_hold_over_all_processes(sent: Sent, hosts: Hosts, program: Any) -> None:
    from callboard import control

    hosts.connection.run(control.pause(hosts.connection.keys, "ordered"))
    words = [f"low-{n}" for n in range(30)], [f"high-{n}" for n in range(30)]
    for word in words[0]:
        program.low.send(word)
    for word in words[1]:
        program.high.send(word)
    hosts.connection.run(control.resume(hosts.connection.keys, "ordered"))
    program.broker.join("ordered", timeout=30_000)
    order = [word for word in program.traces() if word.partition("-")[0] in ("low", "high")]
    assert sorted(order) == sorted([*words[0], *words[1]])
    # Those that run beside each other may change places, and Dramatiq's Worker fetches twice its threads.
    assert {word.partition("-")[0] for word in order[:15]} == {"high"}


def test_a_time_limit(sent: Sent, program: Any, kind: str) -> None:
    record = sent.end(program.endless.send())
    assert (record.state, record.attempt) == ("failed", 1)
    assert record.error is not None
    # Dramatiq's worker knows it as an exception like any other.
    assert record.reason == ("timeout" if kind == "serve" else "exhausted")


def test_actors_may_be_async(sent: Sent, program: Any) -> None:
    messages = [program.nap.send(word=str(number), seconds=0.1) for number in range(20)]
    records = [sent.end(message) for message in messages]
    assert [record.result for record in records] == [[str(number)] * 2 for number in range(20)]
    assert {record.attempt for record in records} == {2}


def test_a_message_that_came_by_name(sent: Sent, hosts: Hosts, program: Any) -> None:
    ids = hosts.board.submit("add", payload={"x": 1, "y": 2}, queue="program")
    ids += hosts.board.submit("nap", payload={"word": "w", "seconds": 0}, queue="asleep")
    first, second = hosts.board.await_end(ids, 20)
    assert (first.state, first.result) == ("completed", 3)
    assert (second.state, second.result, second.attempt) == ("completed", ["w", "w"], 2)


@pytest.mark.parametrize("kind", ["serve"], indirect=True, scope="module")
def test_a_body_that_kills_its_process(sent: Sent, program: Any) -> None:
    record = sent.end(program.crash.send("crash"))
    assert (record.state, record.result, record.attempt) == ("completed", "alive", 2)
    assert record.attempts[0].outcome == "crashed"


def test_nothing_is_left_behind(sent: Sent, hosts: Hosts, worker: Running, program: Any) -> None:
    """A clean end, and a board without faults."""
    for queue in ("program", "elsewhere", "ordered", "asleep"):
        program.broker.join(queue, timeout=30_000)
    worker.term()
    assert worker.wait(30) == 0
    assert hosts.board.workers() == []
    assert hosts.board.faults() == []
