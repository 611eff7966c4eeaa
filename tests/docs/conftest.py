"""The README's laptop: its `tasks.py`, with its `callboard up` running."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.docs.laptop import Laptop
from tests.docs.page import PAGES


@pytest.fixture(scope="session")
def readers_laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """For all tests that type what a page shows beside the README's ten lines."""
    for tool in ("bash", "curl"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on PATH")
    blocks = [block.text for block in PAGES["README.md"].blocks]
    [tasks] = [text for text in blocks if text.startswith("# tasks.py")]
    [up] = [text.strip() for text in blocks if text.startswith("callboard up")]
    laptop = Laptop(tmp_path_factory.mktemp("laptop"))
    (laptop.folder / "tasks.py").write_text(tasks, encoding="utf-8")
    with laptop.up(up):
        yield laptop
