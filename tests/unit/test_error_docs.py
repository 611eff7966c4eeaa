"""docs/errors.md, the API's table and the classes name the same codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from callboard_api.problems import KINDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
HTTP, _, ELSEWHERE = PAGE.partition("## In Python")


def rows(part: str) -> Iterator[list[str]]:
    for line in part.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def codes_of_classes() -> set[str]:
    """From the source, for importing everything needs every extra."""
    found = set()
    for room in ("callboard", "callboard_apps", "services"):
        for path in (ROOT / room).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            found |= set(re.findall(r'^    code(?:: ClassVar\[str\])? = "([a-z-]+)"$', text, re.MULTILINE))
    return found


def test_the_page_has_every_problem_with_its_status() -> None:
    told = {row[0].strip("`"): int(row[1]) for row in rows(HTTP)}
    assert told == {code: kind.status for code, kind in KINDS.items()}


def test_the_page_has_every_other_code_once() -> None:
    told = [row[0].strip("`") for row in rows(ELSEWHERE)]
    assert len(told) == len(set(told))
    assert set(told) == codes_of_classes() - set(KINDS)


def test_every_code_is_explained() -> None:
    for row in rows(PAGE):
        assert len(row[2]) > 20, row
