"""The timetable in Redis: nobody undoes another's change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from callboard.catalog import timetable
from callboard.catalog.schedule import Schedule
from callboard.errors import Conflict
from callboard.storage.connection import AsyncConnection, Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.operation import Command

NIGHTLY = Schedule(id="nightly", task="reports.build", cron="0 3 * * *", payload={"x": 1})


def changes(connection: Connection) -> int:
    return connection.run(timetable.tick(connection.keys))[1]


def test_a_schedule_is_put_read_changed_and_deleted(connection: Connection) -> None:
    keys = connection.keys
    created = connection.run(timetable.create(keys, NIGHTLY))
    assert connection.run(timetable.get(keys, "nightly")) == created
    assert created.revision == 1
    assert not created.is_planned
    changed = connection.run(timetable.change(keys, replace(NIGHTLY, cron="0 4 * * *"), 1))
    assert (changed.revision, changed.edited, changed.created_ms) == (2, True, created.created_ms)
    assert dict(connection.run(timetable.read(keys)).entries) == {"nightly": changed}
    assert connection.run(timetable.delete(keys, "nightly"))
    assert not connection.run(timetable.delete(keys, "nightly"))
    with pytest.raises(timetable.ScheduleNotFound):
        connection.run(timetable.get(keys, "nightly"))


async def test_the_same_operations_run_on_an_event_loop(redis_url: str, namespace: str) -> None:
    connection = AsyncConnection(redis_url, namespace=namespace)
    created = await connection.run(timetable.create(connection.keys, NIGHTLY))
    assert await connection.run(timetable.get(connection.keys, "nightly")) == created
    await connection.close()


def test_an_id_is_taken_once(connection: Connection) -> None:
    connection.run(timetable.create(connection.keys, NIGHTLY))
    with pytest.raises(Conflict, match="exists already"):
        connection.run(timetable.create(connection.keys, replace(NIGHTLY, task="other")))


def test_a_change_names_the_revision_that_it_replaces(connection: Connection) -> None:
    keys = connection.keys
    connection.run(timetable.create(keys, NIGHTLY))
    mine = replace(NIGHTLY, name="mine")
    connection.run(timetable.change(keys, mine, 1))
    with pytest.raises(Conflict, match="revision 2 by now, not 1"):
        connection.run(timetable.change(keys, replace(NIGHTLY, name="theirs"), 1))
    assert connection.run(timetable.change(keys, mine, 1)).revision == 2, "sent again: done already"


def test_a_pointer_that_moves_is_no_conflict_for_an_editor(connection: Connection) -> None:
    keys = connection.keys
    entry = connection.run(timetable.create(keys, NIGHTLY))
    moved = connection.run(timetable.advance(keys, entry, replace(entry, planned=1, nominal_ms=5, fire_ms=5)))
    assert moved is not None
    changed = connection.run(timetable.change(keys, replace(NIGHTLY, name="new"), 1))
    assert changed.nominal_ms == 5
    assert not changed.is_planned, "the pointer belongs to the former definition"


def test_of_two_that_move_one_pointer_one_wins(connection: Connection) -> None:
    keys = connection.keys
    entry = connection.run(timetable.create(keys, NIGHTLY))
    first = connection.run(timetable.advance(keys, entry, replace(entry, last_fired_ms=1)))
    assert first is not None
    assert connection.run(timetable.advance(keys, entry, replace(entry, last_fired_ms=2))) is None
    assert connection.run(timetable.get(keys, "nightly")).last_fired_ms == 1
    assert connection.run(timetable.advance(keys, entry, replace(entry, last_fired_ms=1))) is not None, (
        "the same call, resent after a lost reply"
    )


def test_a_deleted_schedule_is_not_brought_back_by_its_pointer(connection: Connection) -> None:
    keys = connection.keys
    entry = connection.run(timetable.create(keys, NIGHTLY))
    connection.run(timetable.delete(keys, "nightly"))
    assert connection.run(timetable.advance(keys, entry, replace(entry, last_fired_ms=1))) is None
    assert connection.run(timetable.read(keys)).entries == {}


def test_changes_of_definitions_are_counted_and_pointers_are_not(connection: Connection) -> None:
    keys = connection.keys
    entry = connection.run(timetable.create(keys, NIGHTLY))
    assert changes(connection) == 1
    connection.run(timetable.advance(keys, entry, replace(entry, last_fired_ms=1)))
    assert changes(connection) == 1
    connection.run(timetable.change(keys, replace(NIGHTLY, paused=True), 1))
    connection.run(timetable.delete(keys, "nightly"))
    assert changes(connection) == 3


def test_an_entry_of_a_newer_release_is_told_and_left_alone(connection: Connection) -> None:
    keys = connection.keys
    connection.run(timetable.create(keys, NIGHTLY))
    connection.execute(Command("HSET", keys.timetable, "strange", '{"form": 2}'))
    found = connection.run(timetable.read(keys))
    assert list(found.entries) == ["nightly"]
    assert found.unreadable == ("strange",)
    declared = Schedule(id="strange", task="t", at=5)
    assert connection.run(timetable.put_declared(keys, [declared], "app:x")) == []


def test_what_code_declares_is_put_and_follows_the_code(connection: Connection) -> None:
    keys = connection.keys
    put = lambda *schedules, origin="app:x": connection.run(  # noqa: E731
        timetable.put_declared(keys, schedules, origin)
    )
    assert put(NIGHTLY) == ["nightly"]
    assert put(NIGHTLY) == [], "the next start changes nothing"
    assert put(replace(NIGHTLY, cron="0 5 * * *")) == ["nightly"]
    entry = connection.run(timetable.get(keys, "nightly"))
    assert (entry.schedule.cron, entry.revision, entry.origin) == ("0 5 * * *", 2, "app:x")


def test_what_a_person_changed_or_another_owns_is_left_alone(connection: Connection) -> None:
    keys = connection.keys
    connection.run(timetable.put_declared(keys, [NIGHTLY], "app:x"))
    by_hand = replace(NIGHTLY, paused=True)
    connection.run(timetable.change(keys, by_hand, 1))
    newer = replace(NIGHTLY, cron="0 5 * * *")
    assert connection.run(timetable.put_declared(keys, [newer], "app:x")) == []
    assert connection.run(timetable.get(keys, "nightly")).schedule == by_hand
    mine = Schedule(id="mine", task="t", at=5)
    connection.run(timetable.create(keys, mine))
    assert connection.run(timetable.put_declared(keys, [replace(mine, task="u")], "app:x")) == []


def test_the_timetable_works_at_maxmemory(
    start_server: Callable[..., EmbeddedServer], namespace: str
) -> None:
    connection = Connection(start_server(config={"maxmemory": "1mb"}).url, namespace=namespace)
    keys = connection.keys
    entry = connection.run(timetable.create(keys, NIGHTLY))
    assert connection.run(timetable.advance(keys, entry, replace(entry, last_fired_ms=1))) is not None
    assert connection.run(timetable.delete(keys, "nightly"))
    connection.close()
