"""Durations and sizes as people write them in a declaration, made exact."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from callboard.clock import timedelta_ms
from callboard.errors import InvalidDeclaration

Duration = timedelta | float
"""A timedelta, or a number of seconds."""

LONGEST_MS: Final = timedelta_ms(timedelta(days=3653))

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", re.IGNORECASE)
_UNITS: Final = {
    "": 1,
    "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4,
    "ki": 1024, "mi": 1024**2, "gi": 1024**3, "ti": 1024**4,
}  # fmt: skip


def duration_ms(value: Duration, what: str, *, zero: bool = False) -> int:
    """`value` in whole milliseconds; `what` names it in the error.

    Raises InvalidDeclaration for what is no duration, below 1 ms (0 if `zero`) or above ten years.
    """
    try:
        if isinstance(value, bool | str):
            raise TypeError
        ms = timedelta_ms(value if isinstance(value, timedelta) else timedelta(seconds=value))
    except (TypeError, ValueError, OverflowError):
        raise InvalidDeclaration(f"{what}: expected seconds or a timedelta; got {value!r}.") from None
    if not (0 if zero else 1) <= ms <= LONGEST_MS:
        least = "0" if zero else "1 ms"
        raise InvalidDeclaration(f"{what}: expected {least} to ten years; got {value!r}.")
    return ms


def size_bytes(value: int | str, what: str) -> int:
    """Bytes of `512`, "512MiB" or "2GB". Raises InvalidDeclaration for anything else, zero included."""
    size = value if isinstance(value, int) and not isinstance(value, bool) else 0
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        size = int(float(match[1]) * _UNITS[(match[2] or "").lower()])
    if size <= 0:
        raise InvalidDeclaration(f"{what}: expected bytes, as a number or like '512MiB'; got {value!r}.")
    return size
