"""When schedules fire, over clock changes, jitter and missed times."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard.catalog.cron import parse
from callboard.catalog.schedule import Schedule
from callboard.catalog.timetable import Entry
from callboard.errors import Invalid
from callboard.records import ids
from callboard_scheduler import timetable

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ms(text: str, zone: str = "UTC") -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))
    return (moment.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)


def entry(created: str = "2026-01-01T00:00", **options: Any) -> Entry:
    return Entry(Schedule(id=options.pop("id", "s"), task="t", **options), created_ms=ms(created))


def firings(made: Entry, since: str, count: int) -> list[str]:
    """The next firings after a UTC time, in the schedule's own zone."""
    at: int | None = ms(since)
    shown = []
    for _ in range(count):
        assert at is not None
        at = timetable.next_after(made, at)
        if at is None:
            break
        local = datetime.fromtimestamp(at / 1000, ZoneInfo(made.schedule.timezone))
        shown.append(local.strftime("%a %d %H:%M%z")[:-2])
    return shown


def test_weekday_numbers_are_crons_and_not_apschedulers() -> None:
    # 2026-11-22 is a Sunday.
    assert firings(entry(cron="0 9 * * 0"), "2026-11-20T00:00", 2) == ["Sun 22 09:00+00", "Sun 29 09:00+00"]
    assert firings(entry(cron="0 9 * * 7"), "2026-11-20T00:00", 1) == ["Sun 22 09:00+00"]
    assert firings(entry(cron="0 9 * * 1-5"), "2026-11-20T10:00", 2) == ["Mon 23 09:00+00", "Tue 24 09:00+00"]
    assert firings(entry(cron="0 9 * * 5-7"), "2026-11-20T00:00", 4) == [
        "Fri 20 09:00+00", "Sat 21 09:00+00", "Sun 22 09:00+00", "Fri 27 09:00+00",
    ]  # fmt: skip


def test_two_day_fields_mean_either() -> None:
    # The 13th, and every Friday.
    assert firings(entry(cron="0 0 13 * fri"), "2026-11-10T00:00", 4) == [
        "Fri 13 00:00+00", "Fri 20 00:00+00", "Fri 27 00:00+00", "Fri 04 00:00+00",
    ]  # fmt: skip
    # A field that begins with a star restricts nothing by itself: both must fit.
    assert firings(entry(cron="0 0 */2 * fri"), "2026-11-10T00:00", 2) == [
        "Fri 13 00:00+00",
        "Fri 27 00:00+00",
    ]


@pytest.mark.parametrize(
    ("cron", "since", "expected"),
    [
        # Spring: 02:00 becomes 03:00. What falls into the gap fires at its end, once.
        ("30 2 * * *", "2026-03-28T12:00", ["Sun 29 03:30+02", "Mon 30 02:30+02"]),
        ("0 2,3 * * *", "2026-03-28T12:00", ["Sun 29 03:00+02", "Mon 30 02:00+02"]),
        # The midnight after it was once left out.
        ("@daily", "2026-03-28T12:00", ["Sun 29 00:00+01", "Mon 30 00:00+02", "Tue 31 00:00+02"]),
        ("30 0 * * *", "2026-03-28T23:30", ["Mon 30 00:30+02", "Tue 31 00:30+02"]),
        ("*/30 * * * *", "2026-03-29T00:29", ["Sun 29 01:30+01", "Sun 29 03:00+02", "Sun 29 03:30+02"]),
        # Autumn: 03:00 becomes 02:00. A fixed time fires once, every half hour is every half hour.
        ("30 2 * * *", "2026-10-24T12:00", ["Sun 25 02:30+02", "Mon 26 02:30+01"]),
        ("15,45 2 * * *", "2026-10-24T12:00", ["Sun 25 02:15+02", "Sun 25 02:45+02", "Mon 26 02:15+01"]),
        ("0 * * * *", "2026-10-24T23:30", ["Sun 25 02:00+02", "Sun 25 02:00+01", "Sun 25 03:00+01"]),
    ],
)
def test_clock_changes(cron: str, since: str, expected: list[str]) -> None:
    assert firings(entry(cron=cron, timezone="Europe/Berlin"), since, len(expected)) == expected


def test_rare_and_impossible_days() -> None:
    assert firings(entry(cron="0 0 29 2 *"), "2026-03-01T00:00", 2) == ["Tue 29 00:00+00", "Sun 29 00:00+00"]
    assert timetable.next_after(entry(cron="0 0 30 2 *"), ms("2026-01-01T00:00")) is None


def test_an_interval_is_elapsed_time_whatever_the_clocks_do() -> None:
    made = entry(interval_seconds=86_400, start_at="2026-03-28T12:00:00Z", timezone="Europe/Berlin")
    assert firings(made, "2026-03-01T00:00", 3) == ["Sat 28 13:00+01", "Sun 29 14:00+02", "Mon 30 14:00+02"]


def test_an_interval_without_a_start_counts_from_when_it_was_put() -> None:
    made = entry("2026-01-01T00:00:10", interval_seconds=60)
    assert timetable.next_after(made, made.created_ms) == made.created_ms + MINUTE
    assert timetable.next_after(made, made.created_ms + MINUTE) == made.created_ms + 2 * MINUTE


def test_a_one_off_fires_once_and_also_when_its_time_has_passed() -> None:
    made = entry(at="2026-01-01T00:00:00Z")
    planned = timetable.plan(made, ms("2026-01-01T00:00:30"))
    assert planned.nominal_ms == ms("2026-01-01T00:00")
    due = timetable.due(planned, ms("2026-01-01T00:00:30"))
    assert due == timetable.Due((ms("2026-01-01T00:00"),), None)
    fired = replace(timetable.point(planned, None), last_nominal_ms=due.nominal_ms[0])
    assert timetable.due(fired, ms("2027-01-01T00:00")) is None
    # Another name for it does not fire it again, another time does.
    renamed = replace(fired, revision=2)
    assert timetable.plan(renamed, ms("2026-02-01T00:00")).nominal_ms is None
    later = replace(renamed, schedule=replace(made.schedule, at="2026-03-01T00:00:00Z"))
    assert timetable.plan(later, ms("2026-02-01T00:00")).nominal_ms == ms("2026-03-01T00:00")


def test_an_unknown_zone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    made = entry(cron="* * * * *")
    object.__setattr__(made.schedule, "timezone", "Mars/Olympus")
    with pytest.raises(Invalid, match="Mars/Olympus"):
        timetable.next_after(made, 0)


ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Pacific/Apia",
]


@st.composite
def crons(draw: st.DrawFn) -> str:
    def part(low: int, high: int) -> str:
        return draw(
            st.one_of(
                st.just("*"),
                st.integers(low, high).map(str),
                st.integers(2, 9).map(lambda step: f"*/{step}"),
                st.tuples(st.integers(low, high), st.integers(low, high)).map(
                    lambda pair: f"{min(pair)}-{max(pair)}"
                ),
            )
        )

    return f"{part(0, 59)} {part(0, 23)} {part(1, 28)} * {part(0, 6)}"


def clock_changes() -> st.SearchStrategy[int]:
    """Moments around which the zones above have changed their clocks, and any others."""
    known = [
        "2011-12-30T10:00", "2018-11-04T03:00", "2026-03-08T07:00", "2026-03-29T01:00", "2026-04-04T15:00",
        "2026-10-03T15:30", "2026-10-25T01:00", "2026-11-01T06:00",
    ]  # fmt: skip
    near = st.tuples(st.sampled_from(known).map(ms), st.integers(-2 * DAY, 2 * DAY)).map(sum)
    return st.one_of(near, st.integers(ms("2010-01-01T00:00"), ms("2030-01-01T00:00")))


def counted_firings(expression: str, zone: ZoneInfo, start: int, end: int) -> list[int]:
    """Every firing in (start, end], from the definition: a minute of the wall's clock after the other."""
    cron, found = parse(expression), set()
    wall = datetime.fromtimestamp(start / 1000, zone).replace(tzinfo=None, fold=0, second=0, microsecond=0)
    wall -= timedelta(hours=26)
    last = datetime.fromtimestamp(end / 1000, zone).replace(tzinfo=None, fold=0) + timedelta(hours=26)
    while wall <= last:
        day, weekday = wall.day in cron.days, wall.isoweekday() % 7 in cron.weekdays
        fits = (day and weekday) if cron.any_day or cron.any_weekday else (day or weekday)
        if not (fits and wall.month in cron.months):
            wall = wall.replace(hour=0, minute=0) + timedelta(days=1)
            continue
        if wall.minute in cron.minutes and wall.hour in cron.hours:
            first, second = (wall.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1))
            found.add(round(first * 1000))
            if cron.any_hour and second > first:
                found.add(round(second * 1000))
        wall += timedelta(minutes=1)
    return sorted(ms for ms in found if start < ms <= end)


@settings(deadline=None)
@given(crons(), st.sampled_from(ZONES), clock_changes())
def test_firings_are_those_of_the_definition(cron: str, zone: str, start: int) -> None:
    made, end = entry(cron=cron, timezone=zone), start + 3 * DAY
    expected = counted_firings(cron, ZoneInfo(zone), start, end)
    # Of many the first, and those around the change, which are more or less in the middle.
    begins = [start, *expected[:20], *expected[:: max(1, len(expected) // 40)]]
    for at in begins:
        wanted = next((ms for ms in expected if ms > at), None)
        following = timetable.next_after(made, at)
        assert following == wanted or (wanted is None and (following is None or following > end))


@settings(deadline=None)
@given(crons(), st.sampled_from(ZONES), clock_changes(), st.data())
def test_a_firing_is_a_function_of_time(cron: str, zone: str, start: int, data: st.DataObject) -> None:
    made = entry(cron=cron, timezone=zone)
    at = start
    for _ in range(5):
        following = timetable.next_after(made, at)
        if following is None:
            return
        assert following > at
        assert following % MINUTE == 0
        between = data.draw(st.integers(at, following - 1))
        assert timetable.next_after(made, between) == following
        at = following


@settings(deadline=None)
@given(crons(), st.sampled_from(ZONES), clock_changes(), st.integers(0, 3 * DAY))
def test_the_last_firing_is_found_without_counting(cron: str, zone: str, start: int, span: int) -> None:
    made = entry(cron=cron, timezone=zone)
    counted, at = None, timetable.next_after(made, start)
    while at is not None and at <= start + span:
        counted, at = at, timetable.next_after(made, at)
    assert timetable.last_before(lambda t: timetable.next_after(made, t), start, start + span) == counted


@given(st.text("abc-._", min_size=1, max_size=20).map(lambda text: "x" + text), st.integers(0, 2**47))
def test_a_firings_task_id_is_valid_and_its_own(schedule_id: str, nominal: int) -> None:
    made = timetable.task_id("q", schedule_id, nominal)
    assert ids.split(made)[0] == "q"
    assert len(ids.split(made)[1]) == 26
    assert made == timetable.task_id("q", schedule_id, nominal)
    assert made != timetable.task_id("q", schedule_id, nominal + 1)
    assert made != timetable.task_id("q", schedule_id + "x", nominal)
    assert made < timetable.task_id("q", "another", nominal + 1), "ids sort by time, as all others do"


@given(st.integers(0, 2**45), st.floats(0, 86_400))
def test_jitter_is_agreed_on_and_bounded(nominal: int, jitter_seconds: float) -> None:
    schedule = Schedule(id="s", task="t", cron="* * * * *", jitter_seconds=jitter_seconds)
    late = timetable.jitter_ms(schedule, nominal)
    assert 0 <= late <= jitter_seconds * 1000 + 1
    assert late == timetable.jitter_ms(replace(schedule, name="another"), nominal)


def test_jitter_spreads() -> None:
    schedule = Schedule(id="s", task="t", cron="* * * * *", jitter_seconds=10)
    seen = {timetable.jitter_ms(schedule, minute * MINUTE) for minute in range(100)}
    assert len(seen) > 80
    assert max(seen) - min(seen) > 8000


NOON = ms("2026-06-01T12:00")


def missed(policy: str, since_ms: int, **options: Any) -> Entry:
    """An hourly schedule whose next firing is NOON's, seen `since_ms` later."""
    made = entry(cron="0 * * * *", misfire=policy, **options)
    return timetable.point(timetable.plan(made, NOON - HOUR), NOON)


@pytest.mark.parametrize("policy", ["skip", "run_once", "run_all"])
def test_nothing_is_due_before_its_time(policy: str) -> None:
    assert timetable.due(missed(policy, 0), NOON - 1) is None


@pytest.mark.parametrize("policy", ["skip", "run_once", "run_all"])
@pytest.mark.parametrize("late", [0, 30 * SECOND, 60 * SECOND])
def test_within_the_grace_every_policy_fires(policy: str, late: int) -> None:
    assert timetable.due(missed(policy, late), NOON + late) == timetable.Due((NOON,), NOON + HOUR)


@pytest.mark.parametrize(
    ("policy", "late", "fired", "following"),
    [
        ("skip", 61 * SECOND, [], 1),
        ("skip", 5 * HOUR + 61 * SECOND, [], 6),
        ("skip", 5 * HOUR + 30 * SECOND, [], 5),  # five o'clock is only late
        ("run_once", 61 * SECOND, [0], 1),
        ("run_once", 5 * HOUR + 61 * SECOND, [5], 6),
        ("run_all", 61 * SECOND, [0], 1),
        ("run_all", 5 * HOUR + 61 * SECOND, [0, 1, 2, 3, 4, 5], 6),
    ],
)
def test_beyond_the_grace_the_policy_decides(
    policy: str, late: int, fired: list[int], following: int
) -> None:
    due = timetable.due(missed(policy, late), NOON + late)
    assert due is not None
    assert [(nominal - NOON) // HOUR for nominal in due.nominal_ms] == fired
    assert due.next_ms == NOON + following * HOUR


def test_run_all_is_bounded_and_keeps_the_newest() -> None:
    made = missed("run_all", 0, misfire_limit=3)
    due = timetable.due(made, NOON + 1000 * DAY)
    assert due is not None
    last = NOON + 1000 * DAY
    assert due.nominal_ms == (last - 2 * HOUR, last - HOUR, last)
    assert due.missed


def test_years_of_missed_minutes_are_decided_quickly() -> None:
    made = entry(cron="* * * 1 *", misfire="run_once")  # every minute of January
    planned = timetable.plan(made, ms("2020-01-01T00:00"))
    due = timetable.due(planned, ms("2026-12-31T00:00"))
    assert due is not None
    assert due.nominal_ms == (ms("2026-01-31T23:59"),)


def test_a_paused_schedule_is_never_due_and_resumes_without_making_up() -> None:
    made = missed("run_all", 0)
    paused = replace(made, schedule=replace(made.schedule, paused=True))
    assert timetable.due(paused, NOON + DAY) is None
    resumed = replace(made, revision=2)
    assert timetable.plan(resumed, NOON + DAY + 1).nominal_ms == NOON + DAY + HOUR


def test_a_clock_that_steps_back_fires_nothing_twice() -> None:
    made = missed("run_once", 0)
    after = timetable.point(replace(made, last_nominal_ms=NOON), NOON + HOUR)
    assert timetable.due(after, NOON - 5 * HOUR) is None
    assert timetable.due(after, NOON) is None
    # Not even when the definition is changed meanwhile and planned anew.
    again = timetable.plan(replace(after, revision=2), NOON - 5 * HOUR)
    assert again.nominal_ms == NOON + HOUR


@settings(deadline=None)
@given(
    st.sampled_from(["skip", "run_once", "run_all"]),
    st.integers(0, 3 * DAY),
    st.integers(0, 7200),
    st.integers(0, 7200),
)
def test_a_decision_always_moves_on_and_never_into_the_future(
    policy: str, late: int, jitter: int, grace: int
) -> None:
    made = missed(policy, late, jitter_seconds=jitter, grace_seconds=grace)
    now, seen = NOON + late, set()
    for _ in range(400):
        due = timetable.due(made, now)
        if due is None:
            break
        assert due.next_ms is not None
        assert made.nominal_ms is not None
        assert due.next_ms > made.nominal_ms
        for nominal in due.nominal_ms:
            assert made.nominal_ms <= nominal < due.next_ms
            assert nominal + timetable.jitter_ms(made.schedule, nominal) <= now
            assert nominal not in seen
            seen.add(nominal)
        made = timetable.point(made, due.next_ms)
    assert made.fire_ms is not None
    assert made.fire_ms > now, "it caught up"
