"""What is typed at the command line: durations, moments, numbers of attempts, payloads."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import click

from callboard import clock

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])", re.ASCII)
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)


class Duration(click.ParamType[float]):
    """Seconds as a number, or parts with units: `90`, `1.5h`, `2h30m`, `250ms`. The value is in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        text = str(value).strip().lower()
        if _NUMBER.fullmatch(text):
            return float(text)
        if not text or _PART.sub("", text):
            self.fail(f"{value!r} is no duration such as 90, 45s, 10m, 2h30m or 7d.", param, ctx)
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


class Moment(click.ParamType[datetime]):
    """A time with its offset (`2026-11-22T09:30:00Z`), or a duration before now (`2h`)."""

    name = "time"

    def __init__(self, *, ago: bool = False) -> None:
        self._ago = ago

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            ms = clock.parse_rfc3339(str(value))
        except ValueError as error:
            if not self._ago:
                self.fail(str(error), param, ctx)
            ms = clock.now_ms() - int(Duration().convert(value, param, ctx) * 1000)
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms)


class Attempts(click.ParamType[int]):
    """A number of attempts, at least 1, or `endless`, whose value is 0."""

    name = "attempts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "endless" or (isinstance(value, int) and value >= 0):
            return 0 if value == "endless" else value
        if not str(value).isascii() or not str(value).isdigit() or int(value) < 1:
            self.fail(f"{value!r} is no number of attempts: 1 or more, or `endless`.", param, ctx)
        return int(value)


def payload_of(pairs: Iterable[str], file: str | None = None) -> dict[str, Any]:
    """The payload that `k=v …` and a JSON file mean; what is typed wins over the file.

    A value is JSON if it parses (`rows=3`, `flag=true`, `who='"7"'`), else a string; `k=@file` takes the
    value from a file by the same rule, `@-` from standard input. Raises click.UsageError.
    """
    payload = {} if file is None else _object(file)
    typed: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            _refuse(f"{pair!r} is not NAME=VALUE.")
        if name in typed:
            _refuse(f"{name!r} is given twice.")
        typed[name] = _value(_read(text[1:]) if text.startswith("@") else text)
    return payload | typed


def _object(file: str) -> dict[str, Any]:
    text = _read(file)
    try:
        payload = _strict(text)
    except ValueError as error:
        _refuse(f"{_called(file)} is not JSON: {error}.")
    if not isinstance(payload, dict):
        _refuse(f"{_called(file)} holds {_kind(payload)}; a payload is a JSON object.")
    return payload


def _value(text: str) -> Any:
    try:
        return _strict(text)
    except ValueError:
        return text


def _strict(text: str) -> Any:
    """JSON as the API reads it: no NaN, no key twice."""

    def constant(word: str) -> NoReturn:
        raise ValueError(f"{word} is no JSON")

    def unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key is there twice")
        return found

    try:
        return json.loads(text, parse_constant=constant, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _read(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.read()
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        _refuse(f"{_called(file)} cannot be read: {error.strerror or error}.")
    except UnicodeDecodeError:
        _refuse(f"{_called(file)} is not UTF-8 text.")


def _called(file: str) -> str:
    return "Standard input" if file == "-" else f"The file {file!r}"


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _refuse(message: str) -> NoReturn:
    raise click.UsageError(message)
