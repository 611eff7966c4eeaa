"""docs/decisions: one page a decision, listed by its number and first line, with what would change it."""

from __future__ import annotations

import re

import pytest

from tests.docs.page import NAMES, PAGES

FOLDER = "docs/decisions/"
DECISIONS = sorted(name for name in NAMES if re.match(rf"{FOLDER}\d", name))
MOST_LINES = 45


def title(name: str) -> str:
    return PAGES[name].text.partition("\n")[0].removeprefix("# ")


def test_the_list_has_each_page_under_its_number_and_title() -> None:
    told = re.findall(r"^- \[(\d{4})\]\(([^)]+)\) (.+)$", PAGES[f"{FOLDER}README.md"].text, re.MULTILINE)
    files = [name.removeprefix(FOLDER) for name in DECISIONS]
    assert told == [(file[:4], file, title(FOLDER + file)) for file in files]
    assert [number for number, _, _ in told] == [f"{number:04}" for number in range(1, len(told) + 1)]


@pytest.mark.parametrize("name", DECISIONS)
def test_a_page_is_short_and_says_what_would_change_it(name: str) -> None:
    text = PAGES[name].text
    assert text.count("\n") <= MOST_LINES
    assert "What would change " in text
