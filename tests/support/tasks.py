"""Tasks in the states that a test needs, made by the real scripts."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

import msgpack

from callboard.records import store
from callboard.records.record import TaskRecord
from callboard.storage.connection import Connection
from callboard.storage.operation import Command, ScriptCall
from callboard.storage.scripts import script
from callboard.submit import Submission, submit

Claim = tuple[str, str]
"""A local id and the token of its claim."""


def accept(connection: Connection, queue: str, count: int = 1, **options: Any) -> list[str]:
    """Submit tasks; their local ids."""
    submissions = [Submission(name="a.task", queue=queue, **options) for _ in range(count)]
    return [answer.id.rpartition("_")[2] for answer in connection.run(submit(connection.keys, submissions))]


def turn(
    connection: Connection,
    queue: str,
    *operations: bytes,
    worker: str = "w1",
    want: int = 0,
    lease_ms: int = 20_000,
) -> list[Claim]:
    """One turn of a worker; what it claimed."""
    call = ScriptCall(
        script("callboard.broker", "turn"),
        connection.keys.queue(queue).prefix,
        (worker, secrets.token_hex(6), want, lease_ms, *operations),
    )
    return [(task.decode(), token.decode()) for task, token, *_ in connection.execute(call)[1]]


def run(
    connection: Connection,
    queue: str,
    count: int = 1,
    *,
    worker: str = "w1",
    lease_ms: int = 20_000,
    **options: Any,
) -> list[Claim]:
    """Submit tasks and claim them for `worker`."""
    accept(connection, queue, count, **options)
    claims: list[Claim] = []
    while len(claims) < count:
        claims += turn(connection, queue, worker=worker, want=min(16, count - len(claims)), lease_ms=lease_ms)
    return claims


def finish(
    connection: Connection, queue: str, claims: Iterable[Claim], *, result: bytes = b"1", followers: Any = ()
) -> None:
    """Complete claimed tasks."""
    for task, token in claims:
        fields = ["completed", task, token, b"", 0, 1, [], result, list(followers)]
        turn(connection, queue, msgpack.packb(fields, use_bin_type=False))


def fail(connection: Connection, queue: str, claims: Iterable[Claim]) -> None:
    """End claimed tasks as failed for good."""
    for task, token in claims:
        fields = ["failed", task, token, b"", 0, 1, [], "failed", "permanent", b"{}", []]
        turn(connection, queue, msgpack.packb(fields, use_bin_type=False))


def size(connection: Connection, queue: str, state: str) -> int:
    """How many tasks are in `state`."""
    count: int = connection.execute(Command("ZCARD", connection.keys.queue(queue).state(state)))
    return count


def record(connection: Connection, queue: str, local: str) -> TaskRecord:
    """The record of a task that must exist."""
    found = connection.run(store.fetch(connection.keys, f"{queue}_{local}"))
    assert found is not None
    return found


def cancel(connection: Connection, queue: str, local: str) -> None:
    """Ask for a task's cancellation."""
    prefix = connection.keys.queue(queue).prefix
    connection.execute(ScriptCall(script("callboard.broker", "cancel"), prefix, (local, "0")))
