"""Every `callboard …` that a page shows is a command line that the command understands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from callboard.cli.group import callboard
from tests.docs.page import NAMES, PAGES

#: What a shell ends a command with.
ENDS = {"|", "||", "&", "&&", ";", ">", ">>", "<", "<<", "<<<", "(", ")"}
#: What the command prints.
OUTPUT = {"callboard is ready: http://127.0.0.1:8000"}


def lines_of(name: str) -> Iterator[str]:
    """The shell lines of a page, and its words in backticks, that begin with `callboard `."""
    page = PAGES[name]
    for block in page.blocks:
        if block.language in ("", "sh", "console", "yaml", "ini"):
            # A line that goes on: by a backslash, or, in a synopsis, by its indentation.
            for line in re.sub(r"\\\n|\n +(?=\[)", " ", block.text).splitlines():
                for found in re.finditer(r"(?:^ *|\| (?:xargs )?|\$\()(?=(callboard .*$))", line):
                    yield found[1]
    yield from (word for word in page.words if word.startswith("callboard ") and word not in OUTPUT)


def is_synopsis(line: str) -> bool:
    return "[" in line or "..." in line or re.search(r"\w\|\w", line) is not None


def words_of(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.wordchars += "@:=,{}…"
    words: list[str] = []
    for word in lexer:
        if word in ENDS:
            break
        words.append(word)
    return words


def parse(words: list[str]) -> None:
    """Walk the words down to the command that they name, as the command line does, and parse them there.

    Raises click.UsageError.
    """
    command: click.Command = callboard
    name, *args = words
    parent: click.Context | None = None
    while args or isinstance(command, click.Group):  # its name alone only names a command
        context = command.make_context(name, list(args), parent=parent)
        if not isinstance(command, click.Group):
            return
        rest = [*context._protected_args, *context.args]
        if not rest or rest[0] in ("COMMAND", "…"):
            return
        found, following, args = command.resolve_command(context, rest)
        assert found is not None
        assert following is not None
        name, command, parent = found, following, context


def fault(line: str) -> str | None:
    try:
        parse(words_of(line))
    except click.exceptions.Exit:
        return None  # --help and --version
    except click.UsageError as error:
        return f"{line!r}: {error.format_message()}"
    return None


@pytest.mark.parametrize("page", NAMES)
def test_every_command_line_parses(page: str) -> None:
    faults = [fault(line) for line in lines_of(page) if not is_synopsis(line)]
    assert [told for told in faults if told] == []


def test_wrong_lines_are_found() -> None:
    assert fault("callboard up tasks.py --port 0") is None
    for wrong in (
        "callboard upp",
        "callboard up --prot 1",
        "callboard tasks show --wait",
        "callboard submit build --priority 10",
    ):
        assert fault(wrong), wrong
    assert words_of("callboard tasks list --quiet | xargs callboard tasks retry") == [
        "callboard", "tasks", "list", "--quiet",
    ]  # fmt: skip


def test_many_lines_are_looked_at() -> None:
    assert sum(1 for name in NAMES for line in lines_of(name) if not is_synopsis(line)) > 30


@pytest.mark.parametrize("line", [line for line in lines_of("docs/cli.md") if "[" in line])
def test_a_synopsis_says_which_options_take_a_value(line: str) -> None:
    """That all options are told is the business of tests/unit/test_cli_docs.py."""
    command: click.Command = callboard
    context = click.Context(callboard)
    for word in line.split()[1:]:
        if isinstance(command, click.Group):
            following = command.get_command(context, word)
            assert following is not None, line
            command = following
    options = {
        name: option
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    shown = re.findall(r"(--[a-z][a-z-]*)( [A-Za-z][\w|,]*)?", line)
    assert shown
    for name, value in shown:
        option = options[name]
        flag = option.is_flag
        assert bool(value) != flag, f"{name} in {line!r}"
