"""The examples do what they say, run in this process as a worker would run them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest

from callboard import testing
from callboard.catalog.loading import load
from callboard.cli.group import COMMANDS
from callboard.errors import TaskFailed
from callboard.task import isolated_registry, registered

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def tasks() -> Iterator[ModuleType]:
    with isolated_registry():
        [module] = load([str(EXAMPLES / "tasks.py")])
        with testing.eager():
            yield module
        # The next test's registry is empty again, so the module has to declare its tasks anew.
        del sys.modules[module.__name__]


def test_a_months_sales_are_added_up(tasks: ModuleType) -> None:
    handle = tasks.build.submit(month="2026-11", rows=50)

    assert handle.result()["rows"] == 50
    assert handle.result() == tasks.build(month="2026-11", rows=50)
    assert handle.progress()["percent"] == 100


def test_a_closed_office_is_tried_again(tasks: ModuleType) -> None:
    handle = tasks.file_away.submit(month="2026-11", opens_at_attempt=3)

    assert handle.result() == "2026-11 is filed"
    assert [attempt.outcome for attempt in handle.record().attempts] == ["failed", "failed", "completed"]
    assert "Filed 2026-11 at attempt 3." in [line.message for line in handle.logs()]


def test_an_office_that_stays_closed_is_given_up(tasks: ModuleType) -> None:
    handle = tasks.file_away.submit(month="2026-11", opens_at_attempt=99)

    with pytest.raises(TaskFailed):
        handle.result()
    assert handle.record().reason == "exhausted"
    assert handle.record().attempt == 4


def test_a_report_without_a_month_fails_at_once(tasks: ModuleType) -> None:
    handle = tasks.file_away.submit(month="")

    with pytest.raises(TaskFailed, match="cannot be filed"):
        handle.result()
    assert handle.record().reason == "permanent"
    assert handle.record().attempt == 1


def test_waiting_for_figures_costs_no_attempt(tasks: ModuleType) -> None:
    soon = datetime.now(UTC) + timedelta(milliseconds=2)
    handle = tasks.wait_for_figures.submit(month="2026-11", ready_at=soon)

    # Eager mode does not wait between runs, so it may give the snooze up; the attempts stay at one.
    assert handle.record().attempt == 1
    past = datetime.now(UTC) - timedelta(hours=1)
    assert (
        tasks.wait_for_figures.submit(month="2026-11", ready_at=past).result()
        == "the figures of 2026-11 are there"
    )


def test_letters_go_out_side_by_side(tasks: ModuleType) -> None:
    handle = tasks.send_letters.submit(to=["Ada", "Ruth", "Hamid"], seconds_each=0)

    assert handle.result() == 3


def test_the_dramatiq_program_declares_its_actors_on_our_broker() -> None:
    import dramatiq

    from callboard import CallboardBroker

    before = dramatiq.broker.global_broker
    try:
        [program] = load([str(EXAMPLES / "dramatiq_program.py")])
        assert isinstance(dramatiq.get_broker(), CallboardBroker)
        assert program.count_words("one two three") == 3
        assert dramatiq.get_broker().get_actor("say") is program.say
    finally:
        dramatiq.broker.global_broker = before


def test_the_readme_names_only_commands_files_and_tasks_that_exist(tasks: ModuleType) -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")

    for command in re.findall(r"^    callboard ([a-z]+)", text, re.MULTILINE):
        assert command in COMMANDS, command
    for name in re.findall(r"callboard (?:submit|run) (\w+)(?= )", text):
        assert name in registered(), name
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (EXAMPLES / target).exists(), target
