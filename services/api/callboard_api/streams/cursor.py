"""Cursors: the place in each queue's stream up to which a client has seen events, as one opaque word."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping

Position = tuple[int, int]
"""An entry's id in a stream: milliseconds by Redis's clock, and a number within them."""

START: Position = (0, 0)
_PREFIX = "c1."


class BadCursor(ValueError):
    """No cursor of ours."""


def position(text: str) -> Position:
    """`ms-n`, as Redis writes it."""
    ms, _, number = text.partition("-")
    return int(ms), int(number or 0)


def text(place: Position) -> str:
    """The inverse of `position`."""
    return f"{place[0]}-{place[1]}"


def encode(places: Mapping[str, Position]) -> str:
    """Positions by queue as one word of letters, digits, `-`, `_` and `.`."""
    # Times differ little between queues: each is written as its distance to the latest.
    latest = max((ms for ms, _ in places.values()), default=0)
    row = [latest, {queue: [latest - ms, number] for queue, (ms, number) in places.items()}]
    packed = json.dumps(row, separators=(",", ":")).encode()
    return _PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def decode(word: str) -> dict[str, Position]:
    """Positions by queue. Raises BadCursor."""
    packed = word.removeprefix(_PREFIX)
    try:
        if packed == word:
            raise ValueError
        latest, row = json.loads(base64.b64decode(packed + "=" * (-len(packed) % 4), b"-_", validate=True))
        places = {queue: (latest - back, number) for queue, (back, number) in row.items()}
    except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError):
        raise BadCursor(word[:100]) from None
    for ms, number in places.values():
        if not (isinstance(ms, int) and isinstance(number, int) and 0 <= ms < 2**63 and 0 <= number < 2**63):
            raise BadCursor(word[:100])
    return places
