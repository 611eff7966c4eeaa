"""`callboard run`: one attempt in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

TASKS = '''
from datetime import date
import asyncio, logging
from callboard import Cancelled, Discard, Retry, current, progress, task

@task(queue="reports")
def build(month: str, rows: int = 2) -> dict:
    """Build."""
    progress(1, rows, "row 1")
    current().logger.info("Attempt %d of %s.", current().attempt, current().name)
    print("printed")
    return {"month": month, "rows": rows}

@task
async def hail(name: str) -> str:
    await asyncio.sleep(0)
    return f"ä{name}"

@task
def fail() -> None:
    def deeper():
        raise LookupError("No such row.")
    deeper()

@task
def give_up() -> None:
    raise Discard("bad address")

@task
def ask_again() -> None:
    raise Retry(after=30, message="the provider asks us to wait")

@task
def stop() -> None:
    raise Cancelled

@task
def odd() -> object:
    return object()

@task
def dated() -> set:
    return {date(2026, 11, 22)}

@task
def leave() -> None:
    raise SystemExit(0)

@task
def pass_on() -> None:
    hail.submit(nome="x")
'''


# One interpreter for all calls: each start of one costs more than what is tested.
DRIVER = """
import json, sys
from click.testing import CliRunner
from callboard.cli.group import callboard
for line in sys.stdin:
    words, typed = json.loads(line)
    done = CliRunner().invoke(callboard, ["run", *words], input=typed)
    told = {"returncode": done.exit_code, "stdout": done.stdout, "stderr": done.stderr}
    sys.stdout.write(json.dumps(told) + chr(10))
    sys.stdout.flush()
"""


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def driver_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "tasks.py").write_text(TASKS, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def driver(driver_folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        cwd=driver_folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0


@pytest.fixture
def run(driver: subprocess.Popen[str]) -> Callable[..., Done]:
    """`callboard run WORDS` in a folder with TASKS."""

    def call(*words: str, typed: str = "") -> Done:
        assert driver.stdin is not None
        assert driver.stdout is not None
        driver.stdin.write(json.dumps([words, typed]) + "\n")
        driver.stdin.flush()
        return Done(**json.loads(driver.stdout.readline()))

    return call


def test_a_result_is_json_and_the_rest_goes_to_standard_error(run: Callable[..., Done]) -> None:
    done = run("build", "month=2026-11", "rows=3", "-m", "tasks.py", "--attempt", "2")
    assert done.returncode == 0, done.stderr
    printed, _, result = done.stdout.partition("\n")
    assert printed == "printed"
    assert json.loads(result) == {"month": "2026-11", "rows": 3}
    assert "progress 1/3 row 1" in done.stderr
    assert "Attempt 2 of build." in done.stderr


def test_a_result_is_shown_as_a_worker_keeps_it(run: Callable[..., Done]) -> None:
    done = run("dated", "-m", "tasks.py")
    assert (done.returncode, json.loads(done.stdout)) == (0, ["2026-11-22"]), done.stderr


def test_a_coroutine_and_a_payload_from_standard_input(run: Callable[..., Done]) -> None:
    done = run("hail", "--module", "tasks", "--json", "-", typed='{"name": "x"}')
    assert (done.returncode, done.stdout) == (0, '"äx"\n')


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("give_up", "The task gives up for good: bad address"),
        ("ask_again", "The task asks to be run again after 30 s: the provider asks us to wait"),
        ("stop", "The task ended as cancelled"),
        ("odd", "The task fails for good: The result cannot be kept as JSON: the type"),
    ],
)
def test_other_ends(run: Callable[..., Done], name: str, said: str) -> None:
    done = run(name, "-m", "tasks.py")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_failure_shows_the_bodys_traceback_and_nothing_of_ours(run: Callable[..., Done]) -> None:
    done = run("fail", "-m", "tasks.py")
    assert done.returncode == 1
    assert "in deeper" in done.stderr
    assert done.stderr.rstrip().endswith("LookupError: No such row.")
    assert "callboard/cli" not in done.stderr


@pytest.mark.parametrize(("name", "last"), [("leave", "SystemExit: 0"), ("pass_on", "InvalidPayload")])
def test_what_else_a_body_raises_is_its_failure(run: Callable[..., Done], name: str, last: str) -> None:
    done = run(name, "-m", "tasks.py")
    assert done.returncode == 1
    assert f"in {name}" in done.stderr
    assert last in done.stderr


ACTORS = """
import asyncio, dramatiq
from callboard import current

@dramatiq.actor(queue_name="counting")
def count(text):
    return [current().queue, len(text.split())]

@dramatiq.actor
async def wait(n: int):
    await asyncio.sleep(0)
    return n
"""


def test_dramatiq_actors_run_too(run: Callable[..., Done], driver_folder: Path) -> None:
    (driver_folder / "actors.py").write_text(ACTORS, encoding="utf-8")
    done = run("count", "text=one two three", "-m", "actors.py")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["counting", 3]
    assert run("wait", "n=7", "-m", "actors.py").stdout == "7\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["biuld", "-m", "tasks.py"], "No task is named 'biuld'. Did you mean 'build'?"),
        (["nobodys"], "A task of your own is found with --module FILE."),
        (["build", "-m", "tasks.py"], "month"),
        (["build", "-m", "nowhere.py"], "there is no file"),
        (["build", "x", "-m", "tasks.py"], "'x' is not NAME=VALUE"),
    ],
)
def test_what_cannot_run_is_told_in_a_line(run: Callable[..., Done], words: list[str], said: str) -> None:
    done = run(*words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def alone(folder: Path, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "tasks.py").write_text(TASKS, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "callboard", "run", *words],
        cwd=folder,
        env={**os.environ, "CALLBOARD_MODULES": "tasks.py"},
        input=typed,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_settings_modules_are_looked_at(tmp_path: Path) -> None:
    done = alone(tmp_path, "hail", "name=y")
    assert (done.returncode, done.stdout) == (0, '"äy"\n'), done.stderr


def test_the_debugger_opens_where_it_failed(tmp_path: Path) -> None:
    done = alone(tmp_path, "fail", "--pdb", typed="where\nquit\n")
    assert done.returncode == 1
    assert "(Pdb)" in done.stdout
    assert "deeper()" in done.stdout
