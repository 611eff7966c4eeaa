from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard import clock


def test_a_moment_is_written_in_utc_with_three_decimals() -> None:
    moment = datetime(2026, 11, 22, 9, 30, 0, 123_999, tzinfo=UTC)
    assert clock.rfc3339(int(moment.timestamp() * 1000)) == "2026-11-22T09:30:00.123Z"
    assert clock.rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert clock.rfc3339(-1) == "1969-12-31T23:59:59.999Z"


@given(st.integers(min_value=-62_135_596_800_000, max_value=253_402_300_799_999))
def test_every_moment_survives_the_round_trip(ms: int) -> None:
    text = clock.rfc3339(ms)
    assert len(text) == 24
    assert clock.parse_rfc3339(text) == ms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T09:30:00Z", "2026-11-22T09:30:00.000Z"),
        ("2026-11-22t09:30:00.5z", "2026-11-22T09:30:00.500Z"),
        ("2026-11-22 09:30:00.123456+01:30", "2026-11-22T08:00:00.123Z"),
        ("2026-11-22T09:30:00-08:00", "2026-11-22T17:30:00.000Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
    ],
)
def test_offsets_and_fractions_are_read(text: str, expected: str) -> None:
    assert clock.rfc3339(clock.parse_rfc3339(text)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "tomorrow", "2026-11-22", "2026-11-22T09:30:00", "2026-02-30T00:00:00Z", "2026-11-22T25:00:00Z",
     "2026-11-22T09:30:00+25:00", "٢٠٢٦-11-22T09:30:00Z"],
)  # fmt: skip
def test_what_names_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        clock.parse_rfc3339(text)


def test_a_moment_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(ValueError, match="outside the years"):
        clock.rfc3339(10**18)


def test_a_wait_of_nothing_returns_at_once() -> None:
    before = clock.monotonic()
    clock.sleep(0)
    clock.sleep(-5)
    assert clock.monotonic() - before < 1


def test_a_duration_in_milliseconds() -> None:
    assert clock.timedelta_ms(timedelta(seconds=1.5)) == 1500


def test_now_is_now() -> None:
    assert abs(clock.now_ms() - datetime.now(UTC).timestamp() * 1000) < 5_000
