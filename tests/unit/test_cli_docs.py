"""docs/cli.md and the commands say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from callboard.cli.exits import Exit
from callboard.cli.group import callboard
from callboard.doctor import FAULTS

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
SECTIONS = {
    part.partition("\n")[0].strip("`"): part for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]
}


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(commands(callboard, "callboard"))


def test_every_command_has_its_section_and_no_section_is_left_over() -> None:
    assert sorted(SECTIONS) == sorted(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_is_in_its_section(path: str) -> None:
    command = COMMANDS[path]
    section = SECTIONS[path]
    options = [name for option in command.params for name in (*option.opts, *option.secondary_opts)]
    told = {name for name in options if name.startswith("--")}
    assert [name for name in sorted(told) if not re.search(rf"{name}\b", section)] == []
    foreign = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section)) - told
    assert foreign == set(), "the page names options that the command does not have"


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_has_a_help_text(path: str) -> None:
    command = COMMANDS[path]
    assert command.help
    assert [
        option.name for option in command.params if isinstance(option, click.Option) and not option.help
    ] == []


def test_every_exit_code_is_in_the_table() -> None:
    table = PAGE.partition("## Exit codes")[2].partition("##")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, flags=re.MULTILINE)] == [*Exit]


def test_every_fault_is_in_the_table_in_the_same_words() -> None:
    rows = re.findall(
        r"^\| `([a-z-]+)` \| (.*) \| (.*) \|$", SECTIONS["callboard doctor"], flags=re.MULTILINE
    )
    assert {code: (meaning, cure) for code, meaning, cure in rows} == {
        code: kind[:2] for code, kind in FAULTS.items()
    }
