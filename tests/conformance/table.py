"""The table of Dramatiq's tests that do not run here, or run among the long ones: `left_out.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("left_out.toml")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A module, a test, or a test on one kind of worker.

    `ours`: the test that holds the same of our broker in our own words.
    """

    name: str
    reason: str
    ours: str | None = None


def _read() -> tuple[dict[str, LeftOut], dict[str, str]]:
    table = tomllib.loads(FILE.read_text())
    left_out = {entry["name"]: LeftOut(**entry) for entry in table["left_out"]}
    assert len(left_out) == len(table["left_out"]), "a test stands twice in the table"
    return left_out, {entry["name"]: entry["reason"] for entry in table["long"]}


LEFT_OUT, LONG = _read()


def matches(item: str, pattern: str) -> bool:
    """Whether `module::test[parameters]` is what an entry names."""
    if "::" not in pattern:
        return item.startswith(f"{pattern}::")
    name, _, parameters = item.partition("[")
    wanted, _, kind = pattern.partition("[")
    return name == wanted and (not kind or kind.rstrip("]") in parameters.rstrip("]").split("-"))
