"""docs/python.md: its tables have every option, field and method."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import fields

from callboard.catalog.contract import ContractOptions
from callboard.catalog.queue import Queue
from callboard.context import CurrentTask
from callboard.handle import TaskHandle
from callboard.task import SubmitOptions
from tests.docs.page import PAGES, rows

PAGE = PAGES["docs/python.md"]


def named(section: str, column: int = 0) -> set[str]:
    """The words in backticks in one column of a section's table."""
    return {word for row in rows(PAGE.section(section)) for word in re.findall(r"`(\w+)", row[column])}


def methods(kind: type, *, wanted: Callable[[str], bool]) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_") and wanted(name)}


def test_the_options_of_a_task() -> None:
    assert named("Options of a task") == {*ContractOptions.__annotations__, "name"}


def test_the_options_of_a_submit() -> None:
    assert named("Submitting") == SubmitOptions.__annotations__.keys()


def test_the_fields_of_a_queue() -> None:
    own = {field.name for field in fields(Queue)} - {"name", "place"}
    assert named("Queues") == own


def test_the_methods_of_a_handle() -> None:
    text = " ".join(row[0] + row[1] for row in rows(PAGE.section("Handles")))
    told = set(re.findall(r"`(?:handle\.)?(\w+)", text))
    assert told == methods(TaskHandle, wanted=lambda name: True)


def test_what_current_gives() -> None:
    [line] = [line for line in PAGE.text.splitlines() if line.startswith("- `current()`")]
    known = {field.name for field in fields(CurrentTask)} | {"logger", "last_attempt"}
    assert set(re.findall(r"`(\w+)`", line)) - {"OutsideTask"} == known
