"""How commands end: exit codes, one-line errors, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from callboard import errors
from callboard.cli import group
from callboard.cli.exits import Exit, exit_of
from callboard.cli.group import COMMANDS, Root, callboard
from callboard.client import ApiUnreachable, RequestRefused


def run(body: Callable[[], Any]) -> Result:
    """The result of a command of the root group whose body does this."""
    root = Root("callboard")
    COMMANDS["probe"] = "probe:probe"
    try:
        root.get_command = lambda ctx, cmd_name: click.Command("probe", callback=body)  # type: ignore[method-assign]
        return CliRunner().invoke(root, ["probe"])
    finally:
        del COMMANDS["probe"]


def raising(error: BaseException) -> Result:
    def body() -> None:
        raise error

    return run(body)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.TaskFailed("It failed."), 1),
        (errors.WaitTimeout("Too long."), 1),
        (errors.InvalidSetting("CALLBOARD_X is not a setting."), 2),
        (errors.MissingExtra("laptop"), 2),
        (errors.UnknownTask("x"), 2),
        (ApiUnreachable("No answer."), 3),
        (errors.StoreUnavailable("Redis does not answer."), 3),
        (RequestRefused(503, {"title": "Redis is away"}), 3),
        (RequestRefused(404, {"title": "Not found"}), 4),
        (RequestRefused(422, {"title": "Unknown task"}), 4),
        (RequestRefused(500, {"title": "Internal error"}), 4),
        (errors.StoreUnfit("Too old."), 4),
        (errors.TaskNotFound("x"), 4),
    ],
)
def test_an_error_is_one_line_and_a_code(error: errors.CallboardError, code: int) -> None:
    result = raising(error)
    assert exit_of(error) == result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith(f"callboard: {str(error)[:20]}")
    assert "Traceback" not in result.output


def test_an_unreachable_api_gets_a_hint() -> None:
    assert "CALLBOARD_URL" in raising(ApiUnreachable("No answer from http://x.")).stderr


def test_a_bug_is_confessed_without_a_traceback_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    result = raising(RuntimeError("oh\nno"))
    assert result.exit_code == Exit.BUG
    assert result.stderr.startswith(
        "callboard: this is a bug in Callboard, please report it: RuntimeError: oh no."
    )
    assert "Traceback" not in result.output
    monkeypatch.setenv("CALLBOARD_LOG_LEVEL", "debug")
    assert "Traceback" in raising(RuntimeError("oh")).stderr


def test_other_ends() -> None:
    assert run(lambda: None).exit_code == 0
    assert raising(KeyboardInterrupt()).exit_code == 130
    assert raising(click.Abort()).exit_code == 130
    assert raising(SystemExit(Exit.TASK_FAILED)).exit_code == 1
    assert raising(click.UsageError("Give one.")).exit_code == 2


@pytest.mark.parametrize(
    "words",
    [["nope"], ["tasks", "nope"], ["submit"], ["submit", "x", "--priority", "12"], ["tasks", "list", "-x"]],
)
def test_usage_errors(words: list[str]) -> None:
    result = CliRunner().invoke(callboard, words)
    assert result.exit_code == 2
    assert "Usage: callboard" in result.stderr


def test_a_bad_setting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_ULR", "http://127.0.0.1:8000")
    result = CliRunner().invoke(callboard, ["tasks", "list"])
    assert result.exit_code == 2
    assert result.stderr == "callboard: CALLBOARD_ULR is not a setting. Did you mean 'CALLBOARD_URL'?\n"


def test_the_commands_load_and_print_help() -> None:
    for name in COMMANDS:
        assert CliRunner().invoke(callboard, [name, "--help"]).exit_code == 0


def test_a_program_without_the_extra_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise ModuleNotFoundError(\"No module named 'click'\", name='click')")
    done = subprocess.run(
        [sys.executable, "-m", "callboard", "tasks", "list"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "callboard: This needs the extra 'cli' (click is not installed): pip install 'callboard[cli]'\n"
    )


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    shell = f"{sys.executable} -m callboard completion bash | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", str(int(Exit.CLOSED_PIPE)))
    code = (
        "import sys; from callboard.cli import group; import click\n"
        "group.Root.get_command = lambda self, ctx, name: click.Command('x', callback=lambda: "
        "[click.echo('y' * 1000) for _ in range(10000)])\n"
        "group.callboard.main(['x'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == Exit.CLOSED_PIPE


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    result = CliRunner().invoke(callboard, ["completion", shell])
    assert result.exit_code == 0
    assert "_CALLBOARD_COMPLETE" in result.stdout


def test_completion_knows_commands_and_states(monkeypatch: pytest.MonkeyPatch) -> None:
    def complete(words: str, count: int) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "callboard"],
            env={
                **os.environ,
                "_CALLBOARD_COMPLETE": "bash_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": str(count),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert complete("callboard ta", 1) == ["tasks"]
    assert complete("callboard tasks list --state c", 4) == ["completed", "cancelled"]


def test_the_exit_codes_are_what_scripts_rely_on() -> None:
    assert [*Exit] == [0, 1, 2, 3, 4, 70, 130, 141]
    assert group.callboard.help is not None
    assert "0 done, 1 a task failed, 2 usage, 3 unreachable, 4 refused or not found" in group.callboard.help
