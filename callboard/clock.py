"""The clock: the one place where the library and the services read time.

Tests replace these functions, nothing else. The time of a task's life is Redis `TIME`, never this
clock; what is read here serves deadlines inside one process, log lines and display.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_RFC3339 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d+))?(?:([Zz])|([+-])(\d{2}):(\d{2}))",
    re.ASCII,
)


def now_ms() -> int:
    """Wall time, in milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def monotonic() -> float:
    """Seconds on a clock that never steps back; its zero means nothing."""
    return time.monotonic()


def sleep(seconds: float) -> None:
    """Block this thread; zero and less return at once."""
    if seconds > 0:
        time.sleep(seconds)


def rfc3339(ms: int) -> str:
    """Milliseconds since 1970 as `2026-11-22T09:30:00.123Z`: UTC, always three decimals.

    Raises ValueError outside the years 1 to 9999.
    """
    try:
        moment = _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        raise ValueError(f"{ms} ms is outside the years 1 to 9999.") from None
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z".rjust(24, "0")


def parse_rfc3339(text: str) -> int:
    """A time with its offset (`…Z`, `…+01:00`) as milliseconds since 1970; finer digits are dropped.

    Raises ValueError for anything else, a time without an offset included: it names no moment.
    """
    match = _RFC3339.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a time like 2026-11-22T09:30:00.123Z.")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, _zulu, sign, offset_hours, offset_minutes = match.groups()[6:]
    leap = second == 60  # RFC 3339 allows it, Python's datetime does not
    moment = datetime(year, month, day, hour, minute, 59 if leap else second, tzinfo=UTC)
    offset = timedelta()
    if sign is not None:
        if int(offset_hours) > 23 or int(offset_minutes) > 59:
            raise ValueError(f"{text!r} has an offset that no place uses.")
        offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes))
        offset = -offset if sign == "-" else offset
    whole = (moment - _EPOCH + timedelta(seconds=1 if leap else 0) - offset) // _MILLISECOND
    return whole + int((fraction or "").ljust(3, "0")[:3])


def timedelta_ms(duration: timedelta) -> int:
    """A duration in whole milliseconds, rounded down."""
    return duration // _MILLISECOND
