"""Cron expressions as cron(5) reads them: five fields, weekdays counted from Sunday, or a macro."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from callboard.errors import Invalid

MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_MONTHS = {name: number for number, name in enumerate(
    ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
)}  # fmt: skip
_WEEKDAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_PART = re.compile(r"(?:(?P<any>\*)|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>\d+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cron:
    """What an expression allows, each field sorted. `weekdays`: 0 is Sunday, 6 Saturday.

    `any_…`: the field began with `*`. When neither day field does, a day that fits either one fires.
    """

    expression: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    any_hour: bool
    any_day: bool
    any_weekday: bool


def parse(expression: str) -> Cron:
    """Read a cron expression. Raises Invalid, which names the field and what it may hold."""
    text = MACROS.get(expression.strip().lower(), expression)
    fields = text.split()
    if len(fields) != 5:
        raise Invalid(
            f"Cron expression {expression!r}: expected five fields (minute, hour, day of month, month, "
            f"day of week) or one of {', '.join(MACROS)}; got {len(fields)}."
        )
    minute, hour, day, month, weekday = fields
    return Cron(
        expression=expression,
        minutes=_field(expression, "minute", minute, 0, 59),
        hours=_field(expression, "hour", hour, 0, 23),
        days=_field(expression, "day of month", day, 1, 31),
        months=_field(expression, "month", month, 1, 12, _MONTHS),
        weekdays=_weekdays(expression, weekday),
        any_hour=hour.startswith("*"),
        any_day=day.startswith("*"),
        any_weekday=weekday.startswith("*"),
    )


def _weekdays(expression: str, text: str) -> tuple[int, ...]:
    # 7 is Sunday as well, so that `5-7` is Friday to Sunday; `*/2` counts from 0 to 6.
    parts = [part.replace("*", "0-6", 1) if part.startswith("*") else part for part in text.split(",")]
    found = _field(expression, "day of week", ",".join(parts), 0, 7, _WEEKDAYS)
    return tuple(sorted({day % 7 for day in found}))


def _field(
    expression: str, field: str, text: str, least: int, most: int, names: dict[str, int] | None = None
) -> tuple[int, ...]:
    def fault() -> Invalid:
        words = f" or {next(iter(names))} to {list(names)[-1]}" if names else ""
        return Invalid(
            f"Cron expression {expression!r}: {field}: expected {least} to {most}{words}, as *, a number, a "
            f"range, a list or with a /step; got {text!r}."
        )

    def number(word: str) -> int:
        if names and word.lower() in names:
            return names[word.lower()]
        if not word.isdecimal() or not least <= int(word) <= most:
            raise fault()
        return int(word)

    allowed: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise fault()
        step = int(match["step"] or 1)
        if match["any"]:
            low, high = least, most
        else:
            low = number(match["low"])
            # `5/15` is from 5 on, as most crons read it.
            high = number(match["high"]) if match["high"] else most if match["step"] else low
            if names is _WEEKDAYS and high < low:
                high += 7  # sat-mon, or fri-sun by their names
        if step < 1 or high < low:
            raise fault()
        allowed.update(range(low, high + 1, step))
    return tuple(sorted(allowed))
