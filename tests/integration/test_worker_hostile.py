"""Hostile input: what nobody could read again is refused, and one bad record harms no neighbour."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import msgpack
import pytest

from callboard import inspector
from callboard.broker import turn
from callboard.broker.broker import CallboardBroker
from callboard.broker.result import BadResult, encode_result
from callboard.broker.turn import Claim, Ending
from callboard.catalog.contract import contract_of
from callboard.errors import Invalid, InvalidPayload
from callboard.events import stream
from callboard.records import layout, log
from callboard.records.nesting import DEEPEST
from callboard.records.state import State
from callboard.storage.connection import Connection
from callboard.storage.operation import Command
from callboard.submit import LONGEST_DELAY_MS, Submission, submit
from callboard.task import submission
from callboard_worker.definition import of_actor
from callboard_worker.intake import take
from callboard_worker.slots.loop import LoopSlots
from callboard_worker.slots.slot import Assignment, Host, Outcome
from tests.support.recording import Recorder, assignment, run
from tests.support.waiting import wait_until


@pytest.fixture
def connection(redis_url: str, namespace: str) -> Iterator[Connection]:
    made = Connection(redis_url, namespace=namespace)
    yield made
    made.close()


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# The door.


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "a\x1fb"},
        {"name": "a\x00b"},
        {"name": "\ud800"},
        {"name": "x" * 256},
        {"owner": "a\x1fb"},
        {"owner": 5},
        {"fairness_key": 42},
        {"fairness_key": "line\nline"},
        {"tags": [5]},
        {"tags": "abc"},
        {"tags": ["x" * 1_000_000]},
        {"tags": ["x"] * 101},
        {"priority": "high"},
        {"priority": 5.5},
        {"weight": 0},
        {"weight": -1},
        {"weight": math.nan},
        {"weight": math.inf},
        {"delay_ms": 0.5},
        {"delay_ms": LONGEST_DELAY_MS + 1},
        {"due_at_ms": 2**62},
        {"expires_in_ms": 2**62},
    ],
    ids=str,
)
def test_what_would_come_back_as_an_unreadable_record_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        Submission(**{"name": "a.task", "queue": "q", **fields})


@pytest.mark.parametrize("option", ["delay", "run_at"])
def test_what_would_expire_before_it_is_due_is_refused(option: str) -> None:
    # The date is made here, not in the parameter list: collection may be minutes before the test.
    when: dict[str, Any] = {"delay": 60}
    if option == "run_at":
        when = {"run_at": datetime.now(UTC) + timedelta(minutes=2)}
    contract = contract_of(idle, name="idle")
    with pytest.raises(Invalid, match="expire before it is due"):
        submission(contract, {}, expires_in=30, **when)
    assert submission(contract, {}, expires_in=300, **when).expires_in_ms == 300_000


def test_an_id_that_names_another_queue_is_refused(connection: Connection) -> None:
    with pytest.raises(Invalid, match="another queue"):
        connection.run(submit(connection.keys, [Submission(name="a.task", queue="q", task_id="other_1")]))


@pytest.mark.parametrize(
    "fields",
    [
        {"priority": -5},
        {"priority": 99},
        {"weight": 1e-300},
        {"weight": 2.0**62},
        {"delay_ms": -5},
        {"due_at_ms": -(2**62)},
        {"due_at_ms": 1},
        {"expires_in_ms": -1},
        {"max_attempts": 0},
        {"name": "ünïcode \u2028 ナマ 🐙", "owner": "…", "fairness_key": "\u202e"},
        {"tags": ["🐙"] * 100},
        {"payload": {"deep": nested(DEEPEST - 1)}},
        {"payload": {"text": "[" * 5000 + '"\\"{'}},
    ],
    ids=str,
)
def test_what_is_odd_but_sound_runs_and_can_be_read(connection: Connection, fields: dict[str, Any]) -> None:
    submission = Submission(**{"name": "a.task", "queue": "q", **fields})
    [accepted] = connection.run(submit(connection.keys, [submission]))
    reply = connection.run(turn.turn(connection.keys, "q", "w", want=1, nonce="n"))
    [claim] = reply.claims
    turn.decode(claim)
    record = connection.run(inspector.get(connection.keys, accepted.id))
    assert record is not None
    assert record.state is State.RUNNING
    assert json.dumps(record.to_json())
    events = connection.run(stream.read(connection.keys.queue("q"), "0-0"))
    assert [event.type for event in events] == ["task.submitted", "task.started"]
    assert {event.name for event in events} == {submission.name}


@pytest.mark.parametrize(
    "payload", [{"x": nested(DEEPEST)}, b"[" * 30_000 + b"]" * 30_000], ids=["dict", "bytes"]
)
def test_a_payload_that_no_reader_could_decode_is_refused(connection: Connection, payload: Any) -> None:
    with pytest.raises(InvalidPayload, match="nested deeper than 100"):
        connection.run(submit(connection.keys, [Submission(name="a.task", queue="q", payload=payload)]))


def test_a_result_that_no_reader_could_decode_is_refused() -> None:
    assert encode_result(nested(DEEPEST)) == json.dumps(nested(DEEPEST)).encode()
    assert encode_result(["[{" * 500] * 200) == json.dumps(["[{" * 500] * 200, separators=(",", ":")).encode()
    with pytest.raises(BadResult, match="nested deeper than 100"):
        encode_result(nested(DEEPEST + 1))


def test_a_record_with_a_bottomless_result_can_still_be_listed(connection: Connection) -> None:
    """One of an earlier release, say: the list shows the rest of it."""
    [accepted] = connection.run(submit(connection.keys, [Submission(name="a.task", queue="q")]))
    [claim] = connection.run(turn.turn(connection.keys, "q", "w", want=1, nonce="n")).claims
    ending = turn.completed(claim.local, claim.token, b"[" * 30_000 + b"]" * 30_000)
    connection.run(turn.turn(connection.keys, "q", "w", endings=[ending]))
    page = connection.run(inspector.find(connection.keys, inspector.TaskFilter(), history=True))
    assert [(found.id, found.state) for found in page.items] == [(accepted.id, State.COMPLETED)]
    assert "undecodable" in page.items[0].result


def test_entries_of_a_later_release_may_have_more_fields(connection: Connection) -> None:
    """Records, messages and log lines grow at their ends; this release reads what it knows."""
    [accepted] = connection.run(submit(connection.keys, [Submission(name="a.task", queue="q")]))
    queue = connection.keys.queue("q")
    local = accepted.id.removeprefix("q_")
    for key in (queue.mutable(local), queue.immutable(local)):
        raw = connection.execute(Command("GET", key))
        longer = raw[:1] + msgpack.packb([*msgpack.unpackb(raw[1:], raw=True), b"new", 5], use_bin_type=False)
        connection.execute(Command("SET", key, longer))
    [claim] = connection.run(turn.turn(connection.keys, "q", "w", want=1, nonce="n")).claims
    assert turn.decode(claim)[1].name == b"a.task"
    line = msgpack.packb([1, 1, "info", "hello", {"more": 1}])
    connection.execute(Command("SET", queue.log(local), layout.VERSION + line))
    assert [found.message for found in connection.run(log.logs(connection.keys, accepted.id)).items] == [
        "hello"
    ]
    ending = turn.completed(claim.local, claim.token, b"1")
    connection.run(turn.turn(connection.keys, "q", "w", endings=[ending]))
    raw = connection.execute(Command("GET", queue.mutable(local)))
    assert msgpack.unpackb(raw[1:], raw=True)[-2:] == [b"new", 5], "a script of this release dropped a field"


def test_a_claim_reads_large_payloads_only_to_hand_them_out(connection: Connection) -> None:
    """Sixty-four of 256 KiB would hold Redis for tens of milliseconds each time that four of them fit."""
    payload = {"filler": "x" * 250_000}
    connection.run(
        submit(connection.keys, [Submission(name="a.task", queue="q", payload=payload) for _ in range(64)])
    )
    server: Any = connection.client
    before = server.info("stats")["keyspace_hits"]
    reply = connection.run(turn.turn(connection.keys, "q", "w", want=64, nonce="n"))
    assert (len(reply.claims), reply.left) == (4, 60)
    assert server.info("stats")["keyspace_hits"] - before < 50
    small = [Submission(name="a.task", queue="r") for _ in range(64)]
    connection.run(submit(connection.keys, small))
    assert len(connection.run(turn.turn(connection.keys, "r", "w", want=64, nonce="n")).claims) == 64


# The intake.


def idle() -> None:
    """Nothing."""


def claim_of(connection: Connection, message: bytes) -> Claim:
    connection.run(submit(connection.keys, [Submission(name="act", queue="q", message=message)]))
    [claim] = connection.run(turn.turn(connection.keys, "q", "w", want=1, nonce="n")).claims
    return claim


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"options": {"time_limit": "abc"}}, "ValueError"),
        ({"options": {"time_limit": [1]}}, "TypeError"),
        ({"options": [1]}, ""),
        ({"args": 5}, "DecodeError"),
        ({"surprise": 5}, "DecodeError"),
        (None, "DecodeError"),
    ],
    ids=str,
)
def test_a_message_that_cannot_be_taken_fails_alone(
    connection: Connection, change: dict[str, Any] | None, cause: str
) -> None:
    """It ends with its cause. An exception here would cost all tasks of the turn their start, three times."""
    broker = CallboardBroker(connection=connection, middleware=[])
    actor = dramatiq.actor(actor_name="act", queue_name="q", broker=broker)(idle)
    fields = json.loads(actor.message().encode())
    claim = claim_of(connection, b"[1]" if change is None else json.dumps({**fields, **change}).encode())
    taken = take("q", claim, {"act": of_actor(actor, broker)})
    assert isinstance(taken, Ending)
    connection.run(turn.turn(connection.keys, "q", "w", endings=[taken]))
    record = connection.run(inspector.get(connection.keys, f"q_{claim.local}"))
    assert record is not None
    assert (record.state, record.reason) == (State.FAILED, "permanent")
    assert record.error is not None
    assert cause in record.error["type"]


def test_a_body_of_wrong_types_fails_alone(connection: Connection) -> None:
    broken = layout.VERSION + msgpack.packb([5, [1], 7, {}, 0, 0, 0, 0, 0])
    [accepted] = connection.run(submit(connection.keys, [Submission(name="act", queue="q")]))
    local = accepted.id.removeprefix("q_")
    connection.execute(Command("SET", connection.keys.queue("q").immutable(local), broken))
    [claim] = connection.run(turn.turn(connection.keys, "q", "w", want=1, nonce="n")).claims
    broker = CallboardBroker(connection=connection, middleware=[])
    actor = dramatiq.actor(actor_name="act", queue_name="q", broker=broker)(idle)
    assert isinstance(take("q", claim, {"act": of_actor(actor, broker)}), Ending)


# The event loop, which a thousand bodies share.


async def stop_the_loop(_: Assignment, __: Host) -> Outcome:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)
    return Outcome("completed", result=b"1")


async def exit_in_a_task(_: Assignment, __: Host) -> Outcome:
    async def leave() -> None:
        sys.exit(3)

    try:
        await asyncio.create_task(leave())
    except SystemExit:
        return Outcome("failed")
    return Outcome("completed")


async def exit_in_a_callback(_: Assignment, __: Host) -> Outcome:
    asyncio.get_running_loop().call_soon(sys.exit, 3)
    await asyncio.sleep(0.01)  # the callback comes meanwhile
    return Outcome("completed", result=b"1")


@pytest.mark.parametrize("invoke", [stop_the_loop, exit_in_a_task, exit_in_a_callback])
def test_no_body_takes_the_event_loop_from_its_siblings(invoke: Any) -> None:
    recorder = Recorder()
    release = asyncio.Event()

    async def invoked(of: Assignment, host: Host) -> Outcome:
        if of.name == "wait":
            await release.wait()
            return Outcome("completed")
        return await invoke(of, host)

    group = LoopSlots(3, recorder, invoke=invoked)
    group.start()
    try:
        sibling = assignment("wait")
        group.run(sibling)
        assert run(group, recorder, assignment("bad"), 10).kind in ("completed", "failed")
        assert group._loop is not None
        group._loop.call_soon_threadsafe(release.set)
        assert recorder.outcome(sibling, 10).kind == "completed"
        wait_until(group.ready, 30, "readiness")
    finally:
        group.close(1)
    assert group._thread is not None
    assert not group._thread.is_alive()
