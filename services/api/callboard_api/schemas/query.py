"""Queries: parameters of a URL, each known by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from urllib.parse import parse_qsl

from callboard import clock
from callboard.errors import Problem
from callboard_api.problems import Rejected
from callboard_api.schemas.fields import kind

_LONGEST = 2000


class Query:
    """The parameters of one request. `known`: their names, and whether they may be given several times.

    Raises Rejected (422) for an unknown one, and for one that is given twice and must not be. The readers
    raise the same for a bad value.
    """

    def __init__(self, raw: bytes, known: Mapping[str, bool]) -> None:
        self._values: dict[str, list[str]] = {}
        if not raw:
            return
        try:
            pairs = parse_qsl(
                raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=200
            )
        except ValueError:
            raise Rejected("invalid-query", "The query cannot be decoded.") from None
        for name, value in pairs:
            if name not in known:
                told = f"The parameter {kind(name)} is not known here."
                raise bad(name, told if known else f"{told} This route takes none.", "unknown-parameter")
            values = self._values.setdefault(name, [])
            if values and not known[name]:
                raise bad(name, f"The parameter {name!r} is given more than once.")
            if len(value) > _LONGEST:
                raise bad(name, f"At most {_LONGEST:,} characters.")
            values.append(value)

    def text(self, name: str) -> str:
        """The value; "" when it is absent."""
        values = self._values.get(name)
        return values[0] if values else ""

    def texts(self, name: str) -> list[str]:
        """All values that are not empty."""
        return [value for value in self._values.get(name, ()) if value]

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        text = self.text(name)
        if not text:
            return default
        # int() takes spaces, signs, underscores and other scripts' digits.
        if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
            raise bad(name, f"Expected a whole number, {low:,} to {high:,}; got {kind(text)}.")
        return int(text)

    def instant(self, name: str) -> int | None:
        """A time with its offset, as ms since 1970."""
        text = self.text(name)
        if not text:
            return None
        try:
            # A `+` that was not escaped arrives as a space.
            return clock.parse_rfc3339(text.replace(" ", "+") if "T" in text.upper() else text)
        except ValueError:
            raise bad(name, f"Expected a time like 2026-11-22T09:30:00Z; got {kind(text)}.") from None

    def choices(self, name: str, allowed: Collection[str]) -> frozenset[str]:
        """Words of `allowed`, given several times or separated by commas."""
        words = [word for text in self._values.get(name, ()) for word in text.split(",") if word]
        for word in words:
            if word not in allowed:
                raise bad(name, f"Expected any of {listed(sorted(allowed))}; got {kind(word)}.")
        return frozenset(words)


def bad(name: str, detail: str, reason: str = "invalid") -> Rejected:
    """The problem for one parameter."""
    return Rejected("invalid-query", detail, errors=[Problem(f"?{name[:100]}", detail, reason)])


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
