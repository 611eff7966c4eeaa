"""Cron expressions mean what cron(5) says."""

from __future__ import annotations

import pytest

from callboard.catalog.cron import MACROS, parse
from callboard.errors import Invalid


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("*", (0, 1, 2, 3, 4, 5, 6)),
        ("0", (0,)),
        ("7", (0,)),
        ("1-5", (1, 2, 3, 4, 5)),
        ("mon-fri", (1, 2, 3, 4, 5)),
        ("MON,wed", (1, 3)),
        ("0-4", (0, 1, 2, 3, 4)),
        ("5-7", (0, 5, 6)),
        ("fri-sun", (0, 5, 6)),
        ("sat-mon", (0, 1, 6)),
        ("*/2", (0, 2, 4, 6)),
        ("1-5/2", (1, 3, 5)),
        ("0,7", (0,)),
    ],
)
def test_weekdays_count_from_sunday(text: str, days: tuple[int, ...]) -> None:
    assert parse(f"0 0 * * {text}").weekdays == days


def test_fields_ranges_lists_steps_and_names() -> None:
    cron = parse("*/20 9-11,14 1,15 jan-mar,DEC *")
    assert cron.minutes == (0, 20, 40)
    assert cron.hours == (9, 10, 11, 14)
    assert cron.days == (1, 15)
    assert cron.months == (1, 2, 3, 12)
    assert (cron.any_hour, cron.any_day, cron.any_weekday) == (False, False, True)
    assert parse("5/15 * * * *").minutes == (5, 20, 35, 50)
    assert parse("10-30/10 */2 * * *").minutes == (10, 20, 30)
    assert parse("0 */2 * * *").any_hour


@pytest.mark.parametrize("macro", MACROS)
def test_macros(macro: str) -> None:
    assert parse(macro).minutes == (0,)
    assert parse(f" {macro.upper()} ").hours == parse(macro).hours


def test_weekly_is_sunday() -> None:
    assert parse("@weekly").weekdays == (0,)


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("* * * *", "expected five fields"),
        ("* * * * * *", "got 6"),
        ("@reboot", "expected five fields"),
        ("60 * * * *", "minute: expected 0 to 59"),
        ("* 24 * * *", "hour: expected 0 to 23"),
        ("* * 0 * *", "day of month: expected 1 to 31"),
        ("* * * 13 *", "month: expected 1 to 12 or jan to dec"),
        ("* * * * 8", "day of week: expected 0 to 7 or sun to sat"),
        ("* * * * 5#2", "got '5#2'"),
        ("* * L * *", "got 'L'"),
        ("30-10 * * * *", "got '30-10'"),
        ("*/0 * * * *", "got '*/0'"),
        ("1,,2 * * * *", "got '1,,2'"),
        ("-5 * * * *", "got '-5'"),
        ("٣ * * * *", "minute"),
        ("", "got 0"),
    ],
)
def test_what_is_no_expression(expression: str, told: str) -> None:
    with pytest.raises(Invalid) as fault:
        parse(expression)
    assert told in str(fault.value)
