"""What a schedule may say, and its form on the wire."""

from __future__ import annotations

import json
import types
from datetime import UTC, datetime
from typing import Any

import pytest

from callboard.catalog.schedule import Schedule, schedules_in
from callboard.catalog.timetable import Entry
from callboard.errors import Invalid

EACH_KIND = [
    Schedule(id="a", task="t", cron="0 3 * * 1-5", timezone="Europe/Berlin", payload={"x": [1, "ü"]}),
    Schedule(id="b", task="t", interval_seconds=90, start_at="2026-11-22T09:30:00Z", queue="q", tags=["n"]),
    Schedule(id="c", task="t", interval_seconds=1.5, jitter_seconds=2, misfire="run_all", misfire_limit=7),
    Schedule(id="d", task="t", at=datetime(2026, 11, 22, tzinfo=UTC), paused=True, priority=0, owner="o"),
]


@pytest.mark.parametrize("schedule", EACH_KIND, ids=lambda schedule: schedule.id)
def test_a_schedule_survives_its_document(schedule: Schedule) -> None:
    document = json.loads(json.dumps(schedule.document()))
    assert Schedule.from_document(document) == schedule
    entry = Entry(schedule, revision=3, created_ms=5, nominal_ms=8, origin="app:x", last_task_id="q_1")
    assert Entry.unpack(entry.pack()) == entry


def test_the_wire_form() -> None:
    entry = Entry(EACH_KIND[1], revision=2, planned=2, nominal_ms=1_000, fire_ms=1_500)
    shown = entry.to_json()
    assert shown["trigger"] == {"interval_seconds": 90, "start_at": "2026-11-22T09:30:00.000Z"}
    assert shown["misfire"] == {"policy": "run_once", "grace_seconds": 60, "limit": 100}
    assert shown["next_fire_at"] == "1970-01-01T00:00:01.500Z"
    assert (shown["queue"], shown["revision"], shown["last_fired_at"]) == ("q", 2, None)


def test_no_next_firing_is_shown_while_paused_or_unplanned() -> None:
    assert Entry(EACH_KIND[3], planned=1, fire_ms=5).to_json()["next_fire_at"] is None
    assert Entry(EACH_KIND[0], revision=2, planned=1, fire_ms=5).to_json()["next_fire_at"] is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id": "two words"}, "id: expected"),
        ({"id": "#"}, "id: expected"),
        ({"task": ""}, "task: expected"),
        ({"cron": None}, "exactly one of cron, interval_seconds, at; got []"),
        ({"interval_seconds": 5}, "exactly one"),
        ({"cron": "nonsense"}, "five fields"),
        ({"cron": None, "interval_seconds": 0.5}, "interval_seconds: expected 1 second"),
        ({"cron": None, "interval_seconds": float("nan")}, "interval_seconds"),
        ({"cron": None, "interval_seconds": True}, "interval_seconds"),
        ({"cron": None, "at": "tomorrow"}, "at: expected a time such as"),
        ({"cron": None, "at": datetime(2026, 1, 1)}, "at: expected a datetime with its time zone"),  # noqa: DTZ001
        ({"start_at": 5}, "start_at: expected none without interval_seconds"),
        ({"timezone": "Europe/Berlyn"}, "timezone: expected a name"),
        ({"timezone": "Europe"}, "timezone: expected a name"),
        ({"timezone": "../etc/passwd"}, "timezone: expected a name"),
        ({"jitter_seconds": -1}, "jitter_seconds"),
        ({"grace_seconds": float("inf")}, "grace_seconds"),
        ({"misfire": "catch_up"}, "misfire: expected one of skip, run_once, run_all"),
        ({"misfire_limit": 101}, "misfire_limit: expected 1 to 100"),
        ({"priority": 10}, "priority: expected 0"),
        ({"payload": {"x": object()}}, "payload: expected a JSON object"),
        ({"payload": {"x": float("nan")}}, "payload: expected a JSON object"),
        ({"queue": "no queue"}, "cannot name a queue"),
    ],
)
def test_a_bad_value_is_told(change: dict[str, Any], told: str) -> None:
    with pytest.raises(Invalid) as fault:
        Schedule(**{"id": "s", "task": "t", "cron": "* * * * *", **change})
    assert told in str(fault.value)


def test_where_schedules_are_found() -> None:
    one = EACH_KIND[0]
    module = types.ModuleType("m")
    module.nightly = one  # type: ignore[attr-defined]
    module.other = 5  # type: ignore[attr-defined]
    assert schedules_in(one) == [one]
    assert schedules_in((one, one)) == [one, one]
    assert schedules_in(module) == [one]
    for nonsense in (5, ["x"], "abc"):
        with pytest.raises(Invalid, match="Expected schedules"):
            schedules_in(nonsense)
