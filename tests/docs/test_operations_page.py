"""docs/operations.md: its numbers are the code's, and its Redis user suffices."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import redis

from callboard import control, inspector
from callboard.broker import result, submission, turn
from callboard.catalog import published
from callboard.context import LONGEST_DELAY, PROGRESS_BYTES
from callboard.doctor import Checkup
from callboard.errors import StoreUnfit
from callboard.inspector.tasks import SCAN_LIMIT
from callboard.maintenance import pruner
from callboard.maintenance.policy import Policy
from callboard.records.record import HISTORY_LIMIT
from callboard.settings import Settings
from callboard.storage import connection as connections
from callboard.storage import fitness
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.operation import Command, Operation
from callboard.submit import Submission, submit
from callboard_api import waiting, wire
from callboard_api.routes import tasks as task_routes
from callboard_api.schemas import body as bodies
from callboard_api.streams import listener
from callboard_worker import held
from callboard_worker.slots import slot
from tests.docs.page import PAGES, ROOT, rows

PAGE = PAGES["docs/operations.md"]
DEFAULTS = Settings()


def inlined(file: str, name: str) -> int:
    """The number that a Lua fragment gives to a constant."""
    for line in re.finditer(
        r"^local ([A-Z_, ]+) = ([\d, ]+) -- inline", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE
    ):
        named = dict(zip(line[1].split(", "), line[2].split(", "), strict=True))
        if name in named:
            return int(named[name])
    raise AssertionError(f"{file} has no {name}")


def size(count: int) -> str:
    return f"{count // 2**20} MiB" if count % 2**20 == 0 else f"{count // 2**10} KiB"


LOGS = "callboard/broker/lua/logs.lua"
LIMITS = {
    "payload": f"{size(submission.PAYLOAD_BYTES)} of JSON",
    "request line and headers": f"{size(wire.HEAD_BYTES)}, {wire.HEAD_SECONDS:g} s to arrive",
    "request body": f"{size(bodies.SINGLE_BYTES)}; a batch {size(bodies.BATCH_BYTES)}",
    "tasks in a batch": f"{task_routes.MOST_IN_BATCH:,}",
    "nesting of a request body": f"{bodies.DEPTH} levels",
    "result": f"{size(result.RESULT_BYTES)} of JSON",
    "log of a task": f"{inlined(LOGS, 'LOG_MAX_LINES'):,} lines, {size(inlined(LOGS, 'LOG_MAX_BYTES'))}",
    "log line": size(slot.LINE_LIMIT_BYTES),
    "progress": f"{size(PROGRESS_BYTES)}, {1 / held.NOTE_SECONDS:g} writes a second",
    "error message, traceback": f"{size(slot.MESSAGE_LIMIT_BYTES)}, {size(slot.TRACEBACK_LIMIT_BYTES)}",
    "attempts, interruptions": f"the last {HISTORY_LIMIT} of each",
    "delay, `run_at`, expiry": f"{LONGEST_DELAY.days // 365} years ahead",
    "queue depth": f"{DEFAULTS.queue_max_depth:,} waiting tasks",
    "tasks looked at for a filter without an index": f"{SCAN_LIMIT:,}",
    "long poll": f"{waiting.LONGEST_SECONDS} s",
    "events waiting for a slow reader": f"{listener.MOST_WAITING:,}",
}


def test_the_limits_are_those_of_the_code() -> None:
    told = {row[0]: row[1] for row in rows(PAGE.section("Limits")) if row[0] != "what"}
    assert told == LIMITS


def test_the_other_places_that_know_a_limit_agree() -> None:
    assert inlined(LOGS, "LOG_MAX_LINES") == slot.LOG_LIMIT_LINES
    assert inlined(LOGS, "LOG_MAX_BYTES") == slot.LOG_LIMIT_BYTES
    assert inlined("callboard/broker/lua/history.lua", "HISTORY_LIMIT") == HISTORY_LIMIT


def test_the_marks_of_memory_are_those_of_the_code() -> None:
    section = PAGE.section("When memory fills up")
    told = [int(found) for found in re.findall(r"^\| .*?(\d+)%\)? \|", section, re.MULTILINE)]
    assert told == [
        DEFAULTS.retention_memory_percent,
        DEFAULTS.memory_submit_percent,
        round(connections.QUIET_ABOVE * 100),
        DEFAULTS.memory_followup_percent,
        100,
    ]
    assert pruner.BARE_AFTER_MS == 3600 * 1000, "the page says: more than an hour ago"


def test_the_ages_and_counts_of_retention_are_those_of_the_code() -> None:
    section = PAGE.section("Retention")
    assert f"cancelled {DEFAULTS.retention_completed_days:g} days" in section
    assert f"failed {DEFAULTS.retention_failed_days:g};" in section
    assert f"completed {DEFAULTS.retention_completed_count:,}" in section
    assert f"failed {DEFAULTS.retention_failed_count:,};" in section
    assert f"entries go {published.RETENTION_MS // 86_400_000} days" in section
    assert Policy.of(DEFAULTS) == Policy(), "what holds without settings is what the settings' defaults say"


def test_the_redis_user_of_the_page_suffices(start_server: Callable[..., EmbeddedServer]) -> None:
    [line] = [text for block in PAGE.blocks for text in block.text.splitlines() if text.startswith("ACL ")]
    server = start_server()
    redis.Redis.from_url(server.url).execute_command(*line.split())
    connection = Connection(f"redis://callboard:secret@127.0.0.1:{server.port}/0")
    keys = connection.keys
    connection.run(fitness.check(keys))
    one, other = connection.run(
        submit(keys, [Submission(name="build", queue="reports", payload={}) for _ in range(2)])
    )
    reply = connection.run(turn.turn(keys, "reports", "w1", want=1, nonce="n1"))
    [claim] = reply.claims
    connection.run(turn.renew(keys, "reports", [(claim.local, claim.token)], 20_000))
    connection.run(turn.turn(keys, "reports", "w1", endings=[turn.completed(claim.local, claim.token, b"1")]))
    connection.run(control.cancel(keys, other.id))
    connection.run(control.delete(keys, one.id))
    with connection.client.pubsub() as bell:
        bell.subscribe(keys.queue("reports").done("x"))
    assert connection.run(inspector.queues(keys))[0].figures.tasks["cancelled"] == 1
    connection.run(turn.forget(keys, "reports", "w1"))
    assert not list(Checkup(connection).faults())
    with pytest.raises(StoreUnfit):
        connection.run(read_foreign_key())
    connection.close()


def read_foreign_key() -> Operation[None]:
    yield Command("GET", "other:key")
