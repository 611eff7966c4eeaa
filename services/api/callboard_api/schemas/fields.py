"""Fields: taken out of a JSON object one by one; what is wrong or left over is collected with its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from callboard import clock
from callboard.errors import Problem
from callboard_api.problems import Rejected, escape, unknown_fields

_ABSENT: Final = object()
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(slots=True)
class Faults:
    """What is wrong with one request, each under the code that it would have alone."""

    found: list[tuple[str, Problem]] = field(default_factory=list)

    def add(self, code: str, pointer: str, detail: str, reason: str | None = None) -> None:
        """`code`: of the problem; `reason`: of this fault in it, by default the same."""
        self.found.append((code, Problem(pointer, detail, reason or code)))

    def extend(self, code: str, problems: Iterable[Problem]) -> None:
        self.found.extend((code, problem) for problem in problems)

    def check(self) -> None:
        """Raises Rejected with all of them: under their code where they share one, else `invalid-body`."""
        if not self.found:
            return
        codes = {code for code, _ in self.found}
        code = codes.pop() if len(codes) == 1 else "invalid-body"
        problems = [problem for _, problem in self.found]
        told = (
            problems[0].detail
            if len(problems) == 1
            else f"{problems[0].detail} (and {len(problems) - 1} more)"
        )
        raise Rejected(code, told, errors=problems)


class Fields:
    """Reads one object. A reader gives None for a field that is absent (or null) or wrong; the latter is a
    fault. `pointer` is the object's place.
    """

    __slots__ = ("_left", "_object", "faults", "pointer")

    def __init__(self, value: Any, faults: Faults, pointer: str = "#") -> None:
        self.faults = faults
        self.pointer = pointer
        self._object = isinstance(value, Mapping)
        self._left = dict(value) if self._object else {}
        if not self._object:
            self.fault("", f"Expected an object; got {kind(value)}.", "type")

    def fault(
        self, name: str | tuple[str, ...], detail: str, reason: str = "invalid", code: str = "invalid-body"
    ) -> None:
        """Note a fault of the field `name`, or of a place in it; "" for the object itself."""
        self.faults.add(code, self.place(name), detail, reason)

    def place(self, name: str | tuple[str, ...]) -> str:
        """The pointer of a field."""
        steps = (name,) if isinstance(name, str) else name
        return self.pointer + "".join(f"/{escape(step)}" for step in steps if step)

    def take(self, name: str, default: Any = None) -> Any:
        """Any JSON."""
        return self._left.pop(name, default)

    def has(self, name: str) -> bool:
        return self._left.get(name) is not None

    def text(self, name: str, *, longest: int, required: bool = False) -> str | None:
        """1 to `longest` characters without control characters."""
        value = self._left.pop(name, None)
        if value is None:
            if required and self._object:
                self.fault(name, f"The field {name!r} is required.", "required")
            return None
        if not isinstance(value, str) or not 0 < len(value) <= longest or _CONTROL.search(value):
            self.fault(
                name, f"Expected 1 to {longest} characters without control characters; got {kind(value)}."
            )
            return None
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        value = self._left.pop(name, None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.fault(name, f"Expected a whole number, {low:,} to {high:,}; got {kind(value)}.")
            return None
        return value

    def milliseconds(self, name: str, *, longest_ms: int, zero: bool) -> int | None:
        """A duration in seconds, as ms; at least 1 ms unless `zero`."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        least = 0 if zero else 1
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 <= value * 1000 <= longest_ms
        ):
            ms = -1
        else:
            ms = round(value * 1000)
        if ms < least:
            span = f"{'0' if zero else '0.001'} to {longest_ms // 1000:,}"
            self.fault(name, f"Expected seconds, {span}; got {kind(value)}.")
            return None
        return ms

    def instant(self, name: str) -> int | None:
        """A time with its offset, as ms since 1970."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        try:
            if not isinstance(value, str) or len(value) > 64:
                raise ValueError
            return clock.parse_rfc3339(value)
        except ValueError:
            self.fault(name, f"Expected a time like 2026-11-22T09:30:00Z; got {kind(value)}.")
            return None

    def words(self, name: str, *, most: int, longest: int) -> tuple[str, ...]:
        """A list of texts, each once."""
        value = self._left.pop(name, None)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > most:
            self.fault(name, f"Expected a list of up to {most} texts; got {kind(value)}.")
            return ()
        for index, word in enumerate(value):
            if not isinstance(word, str) or not 0 < len(word) <= longest or _CONTROL.search(word):
                self.fault(
                    (name, str(index)),
                    f"Expected 1 to {longest} characters without control characters; got {kind(word)}.",
                )
                return ()
        return tuple(dict.fromkeys(value))

    def flag(self, name: str) -> bool:
        """True or false; absent is false."""
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, bool):
            self.fault(name, f"Expected true or false; got {kind(value)}.")
        return value is True

    def not_yet(self, *names: str) -> None:
        """Refuse fields of features that this version does not have."""
        for name in names:
            if self._left.pop(name, None) is not None:
                told = f"The field {name!r} is not supported yet."
                self.faults.add("not-supported-yet", self.place(name), told)

    def end(self) -> None:
        """Note what nobody has taken."""
        if self._left:
            self.faults.extend("invalid-body", unknown_fields([self.place(name) for name in self._left]))


def no_fields(body: Any) -> None:
    """For a route whose body may be left out and has nothing to say. Raises Rejected."""
    faults = Faults()
    Fields({} if body is None else body, faults).end()
    faults.check()


def kind(value: Any) -> str:
    """What a value is, for a message: short, whatever it holds."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value) if isinstance(value, float) or abs(value) < 10**30 else "a huge number"
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"a text of {len(value):,} characters"
    return f"a list of {len(value):,}" if isinstance(value, list) else "an object"
