"""A blank submits what the write door would, and leaves to that door what it does not decide itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from callboard import inspector
from callboard.errors import InvalidDeclaration, InvalidPayload, QueueFull, StoreFull
from callboard.records.record import TaskRecord
from callboard.records.state import State
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.submit import PAYLOAD_BYTES, Blank, Submission, SubmitLimits, submit

NO_LIMITS = SubmitLimits()
PLAIN = Submission(name="build", queue="reports")


@pytest.fixture
def connection(redis_url: str, namespace: str) -> Iterator[Connection]:
    made = Connection(redis_url, namespace=namespace)
    yield made
    made.close()


def look(connection: Connection, task_id: str) -> TaskRecord:
    record = connection.run(inspector.get(connection.keys, task_id))
    assert record is not None
    return record


def apart_from_when(record: TaskRecord) -> TaskRecord:
    """Without its id, its instants counted from its creation: what two submits of the same have in common."""
    instants: dict[str, Any] = {
        name: None if (at := getattr(record, name)) is None else at - record.created_at
        for name in ("queued_at", "due_at", "expires_at")
    }
    return replace(record, id="", created_at=0, **instants)


@pytest.mark.parametrize(
    "base",
    [
        PLAIN,
        replace(PLAIN, priority=0, tags=("a", "ü" * 40), max_attempts=None, expires_in_ms=60_000),
        replace(
            PLAIN, name="n" * 255, owner="acme", fairness_key="k" * 100, weight=0.25, parent_id="reports_p"
        ),
        replace(PLAIN, delay_ms=3_600_000),
    ],
)
def test_it_submits_what_the_door_would(connection: Connection, base: Submission) -> None:
    blank = Blank(connection, base, NO_LIMITS)
    blank.accept(b"{}")  # the first of a queue registers it, the long way
    # The lengths at which msgpack writes another head for the payload, or for the body around it.
    edges = (0, 20, 31, 32, 200, 255, 256, 65_400, 65_535, 65_536, PAYLOAD_BYTES - 8)
    for length in edges:
        payload = b'{"t":"' + b"x" * max(0, length - 8) + b'"}'
        filled = look(connection, blank.accept(payload))
        [accepted] = connection.run(submit(connection.keys, [replace(base, payload=payload)]))
        door = look(connection, accepted.id)
        assert apart_from_when(filled) == apart_from_when(door)


def test_all_but_the_first_take_one_call_past_the_door(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    blank = Blank(connection, PLAIN, NO_LIMITS)
    blank.accept(b"{}")
    monkeypatch.setattr(connection, "execute", None)
    before = connection.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    blank.accept(b"{}")
    assert connection.client.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 1


def test_its_tasks_are_found_by_a_survey_and_counted_once(connection: Connection) -> None:
    blank = Blank(connection, PLAIN, NO_LIMITS)
    ids = [blank.accept(b"{}") for _ in range(50)]
    assert len(set(ids)) == 50
    assert ids == sorted(ids)
    assert connection.client.smembers(connection.keys.queues) == {b"reports"}
    assert connection.client.zcard(connection.keys.queue("reports").state("queued")) == 50


@pytest.mark.parametrize(
    ("payload", "told"),
    [(b" " * (PAYLOAD_BYTES + 1), "at most 262,144"), (b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", "deeper")],
)
def test_a_payload_that_cannot_be_is_refused(connection: Connection, payload: bytes, told: str) -> None:
    with pytest.raises(InvalidPayload, match=told):
        Blank(connection, PLAIN, NO_LIMITS).accept(payload)
    assert not connection.client.keys(f"{connection.keys.namespace}:*")


def test_a_bad_base_is_refused_when_it_is_made(connection: Connection) -> None:
    with pytest.raises(InvalidDeclaration, match="cannot name a queue"):
        Blank(connection, replace(PLAIN, queue="no queue"), NO_LIMITS)


def test_a_full_queue_takes_no_more(connection: Connection) -> None:
    blank = Blank(connection, PLAIN, SubmitLimits(queue_depth=2))
    accepted = {blank.accept(b"{}") for _ in range(2)}
    for _ in range(2):
        with pytest.raises(QueueFull, match="2 waiting tasks"):
            blank.accept(b"{}")
    assert len(accepted) == connection.client.zcard(connection.keys.queue("reports").state("queued")) == 2


def test_a_server_that_has_forgotten_everything_gets_the_script_again(
    start_server: Callable[..., EmbeddedServer], namespace: str
) -> None:
    connection = Connection(start_server().url, namespace=namespace)
    blank = Blank(connection, PLAIN, NO_LIMITS)
    blank.accept(b"{}")
    connection.client.script_flush()
    assert look(connection, blank.accept(b'{"n":1}')).payload == {"n": 1}
    connection.client.client_kill_filter(_type="normal", skipme=True)
    assert look(connection, blank.accept(b"{}")).state is State.QUEUED
    connection.close()


def test_above_the_memory_limit_nothing_is_sent(
    start_server: Callable[..., EmbeddedServer], namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(config={"maxmemory": "32mb", "maxmemory-policy": "noeviction"})
    connection = Connection(server.url, namespace=namespace)
    blank = Blank(connection, PLAIN, SubmitLimits(memory_share=0.5))
    blank.accept(b"{}")
    for _ in range(24):
        connection.client.rpush("filler", b"x" * 1_000_000)
    connection._gauge(connection.keys.queue("reports").prefix).forget()
    with pytest.raises(StoreFull):
        blank.accept(b"{}")
    assert connection.client.zcard(connection.keys.queue("reports").state("queued")) == 1
    connection.client.delete("filler")
    connection._gauge(connection.keys.queue("reports").prefix).forget()
    blank.accept(b"{}")
    connection.close()


def test_where_no_line_is_to_be_had_it_goes_the_long_way(connection: Connection, namespace: str) -> None:
    shared: Any = connection.client
    other = Connection(connection.address.url, namespace=namespace, client=shared)
    blank = Blank(other, PLAIN, NO_LIMITS)
    blank.accept(b"{}")
    assert look(connection, blank.accept(b'{"n":2}')).payload == {"n": 2}
