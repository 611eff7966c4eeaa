"""When a schedule fires: pure functions of its definition and of time, the same in every scheduler.

Times are ms since 1970. A nominal time is the trigger's; a firing happens at its nominal time plus a jitter
that derives from both, so that two schedulers agree on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from callboard.catalog.cron import Cron, parse
from callboard.catalog.schedule import Schedule
from callboard.catalog.timetable import Entry
from callboard.errors import Invalid

#: A cron expression that fires less often than this is taken for one that never does.
HORIZON_MS = 10 * 366 * 24 * 3600 * 1000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_MINUTE = timedelta(minutes=1)
#: A little more than a day: an island may change sides of the date line.
_DAY = timedelta(hours=25)
Next = Callable[[int], int | None]
"""The first firing after a time, or None."""


@dataclass(frozen=True, slots=True)
class Due:
    """What to do now: submit the firings of `nominal_ms`, in order, then let the pointer be `next_ms`.

    `missed`: whether firings were left out by the misfire policy.
    """

    nominal_ms: tuple[int, ...]
    next_ms: int | None
    missed: bool = False


def next_after(entry: Entry, ms: int) -> int | None:
    """The first nominal time after `ms`; None: there is none. Raises Invalid for an unknown time zone."""
    schedule = entry.schedule
    if schedule.at_ms is not None:
        return schedule.at_ms if schedule.at_ms > ms else None
    if schedule.interval_seconds is not None:
        every = round(schedule.interval_seconds * 1000)
        start = schedule.start_ms
        if start is None:
            start = entry.created_ms + every
        return start if ms < start else start + ((ms - start) // every + 1) * every
    assert schedule.cron is not None
    return _cron(schedule.cron, schedule.timezone)(ms)


def plan(entry: Entry, now_ms: int) -> Entry:
    """The entry with its pointer on the first firing of this definition.

    A one-off that has not fired yet is planned although its time has passed: that is a misfire to decide on.
    """
    at = entry.schedule.at_ms
    if at is not None:
        nominal = at if entry.last_nominal_ms != at else None
    else:
        nominal = next_after(entry, max(now_ms, entry.last_nominal_ms or 0))
    return point(replace(entry, planned=entry.revision), nominal)


def point(entry: Entry, nominal_ms: int | None) -> Entry:
    """The entry with its pointer on `nominal_ms`."""
    fire = None if nominal_ms is None else nominal_ms + jitter_ms(entry.schedule, nominal_ms)
    return replace(entry, nominal_ms=nominal_ms, fire_ms=fire)


def jitter_ms(schedule: Schedule, nominal_ms: int) -> int:
    """How late the firing of `nominal_ms` is, from 0 to the schedule's jitter."""
    most = round(schedule.jitter_seconds * 1000)
    return _hash(f"jitter\n{schedule.id}\n{nominal_ms}") % (most + 1)


def task_id(queue: str, schedule_id: str, nominal_ms: int) -> str:
    """The id of a firing's task: a ULID of the nominal time whose random part derives from the schedule."""
    noise = _hash(f"firing\n{schedule_id}\n{nominal_ms}") & ((1 << 80) - 1)
    value = (max(0, nominal_ms) & ((1 << 48) - 1)) << 80 | noise
    return f"{queue}_" + "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def due(entry: Entry, now_ms: int) -> Due | None:
    """What a planned entry asks for at `now_ms`; None: nothing yet, or never."""
    schedule, nominal = entry.schedule, entry.nominal_ms
    if schedule.paused or nominal is None or entry.fire_ms is None or entry.fire_ms > now_ms:
        return None
    grace = round(schedule.grace_seconds * 1000)
    if now_ms - entry.fire_ms <= grace:
        return Due((nominal,), next_after(entry, nominal))
    # Only nominal times before this one are sure to have passed, jitter included.
    settled = max(nominal, now_ms - round(schedule.jitter_seconds * 1000))
    if schedule.misfire == "skip":
        # Those within the grace are late, not missed.
        kept = next_after(entry, max(nominal, settled - grace - 1))
        return Due((), kept, missed=True)
    wanted = 1 if schedule.misfire == "run_once" else schedule.misfire_limit
    firings = _newest(lambda ms: next_after(entry, ms), nominal, settled, wanted)
    return Due(tuple(firings), next_after(entry, firings[-1]), missed=firings[0] != nominal)


def _newest(following: Next, first: int, until_ms: int, wanted: int) -> list[int]:
    """The last `wanted` firings from `first` (itself one) to `until_ms`, in order; at least one."""
    found = [first]
    while len(found) <= wanted:
        later = following(found[-1])
        if later is None or later > until_ms:
            return found[-wanted:]
        found.append(later)
    # Too many to count: from the end, each by bisection.
    newest: list[int] = []
    while len(newest) < wanted:
        earlier = last_before(following, first, (newest[0] if newest else until_ms + 1) - 1)
        newest.insert(0, first if earlier is None else earlier)
    return newest


def last_before(following: Next, after_ms: int, until_ms: int) -> int | None:
    """The last firing in (after_ms, until_ms], by bisection; None: there is none.

    A trigger only looks forward. But the first firing after t is at most `until_ms` exactly for the times t
    before the last firing, so that one can be closed in on, however many lie between.
    """
    first = following(after_ms)
    if first is None or first > until_ms:
        return None
    found, low, high = first, first, until_ms
    while low < high:
        middle = (low + high) // 2
        later = following(middle)
        if later is not None and later <= until_ms:
            found = low = later
        else:
            high = middle
    return found


@lru_cache(maxsize=4096)
def _cron(expression: str, timezone: str) -> Next:
    cron = parse(expression)
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise Invalid(f"No time zone is named {timezone!r} on this machine.") from None
    triggers = _triggers(cron)

    def following(ms: int) -> int | None:
        found = [after for trigger in triggers if (after := _after(trigger, cron, zone, ms)) is not None]
        return min(found, default=None)

    return following


def _triggers(cron: Cron) -> list[CronTrigger]:
    def trigger(days: tuple[int, ...], weekdays: tuple[int, ...]) -> CronTrigger:
        return CronTrigger(
            minute=_list(cron.minutes),
            hour=_list(cron.hours),
            day=_list(days),
            month=_list(cron.months),
            # By name: APScheduler's numbers count from Monday, cron's from Sunday.
            day_of_week=",".join(_WEEKDAYS[day] for day in weekdays),
            second=0,
            # It is asked about the clock on the wall alone. With a zone it once went from midnight to one
            # o'clock of the next day when the clocks had gone forward, and left that midnight out.
            timezone=UTC,
        )

    if cron.any_day or cron.any_weekday:
        return [trigger(cron.days, cron.weekdays)]
    every_day, every_weekday = tuple(range(1, 32)), tuple(range(7))
    return [trigger(cron.days, every_weekday), trigger(every_day, cron.weekdays)]


def _after(trigger: CronTrigger, cron: Cron, zone: ZoneInfo, ms: int) -> int | None:
    now = _EPOCH + timedelta(milliseconds=ms)
    # Without an end it would look through all months up to the year 9999 for a 30th of February.
    trigger.end_date = now + timedelta(milliseconds=HORIZON_MS)
    wall = _wall(now, zone).replace(second=0, microsecond=0)
    told = trigger.get_next_fire_time(None, wall + _MINUTE)
    if told is None:
        return None
    spread = max(_spread(now, zone), _spread(_moments(told, zone)[0], zone))
    if spread:
        # Around a change of the clocks the order on the wall is not the order of time.
        told = trigger.get_next_fire_time(None, wall - spread)
    best: datetime | None = None
    while told is not None and (best is None or told <= _wall(best, zone) + spread):
        # The hour that comes twice in autumn: a fixed time fires in the first one only.
        for moment in _moments(told, zone)[: 2 if cron.any_hour else 1]:
            if now < moment and (best is None or moment < best):
                best = moment
        if best is not None and not spread:
            break
        told = trigger.get_next_fire_time(None, told + _MINUTE)
    return None if best is None else (best - _EPOCH) // timedelta(milliseconds=1)


def _wall(moment: datetime, zone: ZoneInfo) -> datetime:
    """What the clock on the wall shows, as if it were UTC."""
    return moment.astimezone(zone).replace(tzinfo=UTC, fold=0)


def _moments(wall: datetime, zone: ZoneInfo) -> list[datetime]:
    """When the wall shows that: once, or twice; a time that is skipped comes as much later as was skipped."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return [first, second] if first < second else [first]


def _spread(moment: datetime, zone: ZoneInfo) -> timedelta:
    """By how much the clocks change so near to `moment` that it may matter; else zero."""
    widest = _widest(moment, _DAY, zone)
    return widest if widest and _widest(moment, widest, zone) else timedelta()


def _widest(moment: datetime, near: timedelta, zone: ZoneInfo) -> timedelta:
    offsets = [(moment + by).astimezone(zone).utcoffset() or timedelta() for by in (-near, timedelta(), near)]
    return max(offsets) - min(offsets)


def _list(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
