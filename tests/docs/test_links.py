"""Links lead somewhere, and everything can be reached from the README."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

import pytest

from tests.docs.page import NAMES, PAGES, ROOT


def target_of(page: str, link: str) -> str:
    """The path below ROOT that a relative link of a page means, without its anchor."""
    path = link.partition("#")[0]
    if not path:
        return page
    return os.path.normpath(PurePosixPath(page).parent / path)


def relative_links(page: str) -> list[str]:
    return [link for link in PAGES[page].links if "://" not in link and not link.startswith("mailto:")]


@pytest.mark.parametrize("page", NAMES)
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for link in relative_links(page):
        target = target_of(page, link)
        assert (ROOT / target).exists(), f"{page}: {link}"
        anchor = link.partition("#")[2]
        if anchor:
            assert target in PAGES, f"{page}: {link} leads into a file that is no page"
            assert anchor in PAGES[target].anchors, f"{page}: {link}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[str] = set()
    waiting = ["README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in relative_links(page):
            target = target_of(page, link)
            # A link to a folder shows its README.
            waiting += [name for name in (target, f"{target}/README.md") if name in PAGES]
    assert set(NAMES) - reached == set()
