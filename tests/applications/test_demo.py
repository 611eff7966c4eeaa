"""The whole demo as a person runs it: real server, real processes, a worker that really dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from callboard import clock
from callboard.cli.demo.site import load_pages, site_folder
from tests.support.waiting import wait_until

pytestmark = pytest.mark.proof


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        "TMPDIR": str(tmp_path),
        # The user's own platform: whoever used it would fail at once.
        "CALLBOARD_REDIS_URL": "redis://127.0.0.1:1/0",
        "CALLBOARD_KEY": "the-key-of-the-user",
        "CALLBOARD_APPS": "none",
    }
    command = [sys.executable, "-m", "callboard", "demo", "--port", "0"]
    with (
        (tmp_path / "shown").open("w", encoding="utf-8") as out,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env=environment,
        ) as process,
    ):
        yield process
        process.kill()


def shown(tmp_path: Path) -> str:
    return (tmp_path / "shown").read_text(encoding="utf-8")


def left_running(tmp_path: Path) -> list[str]:
    """Processes that belong to a demo in this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            words = [*command, process.cwd(), *process.environ().values()]
        except psutil.Error:
            continue  # it has just ended
        if process.pid != os.getpid() and any(str(tmp_path) in word for word in words):
            found.append(" ".join(command))
    return found


def test_the_demo_ends_well(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    began = clock.monotonic()
    code = demo.wait(timeout=90)
    took = clock.monotonic() - began
    text = shown(tmp_path)

    assert code == 0, text
    assert took <= 60
    assert text.count("\n1 worker killed, 0 tasks lost\n") == 1
    assert re.search(r"Killed worker \S+ \(process \d+\) with SIGKILL while it ran .*/ferry-log\.html", text)
    assert re.search(r"^API: http://127\.0\.0\.1:\d+", text, re.MULTILINE)
    table = text[text.index("attempts") :]
    for page in load_pages(site_folder()):
        row = next(line for line in table.splitlines() if line.split()[:1] == [page.path])
        assert page.expect.state in row
        assert str(page.expect.fields.get("title", page.expect.says)) in row
    assert re.search(r"^ */timetable\.html +completed +[3-5] \(.*503, .*503.*\)", table, re.MULTILINE)
    assert re.search(r"^ */ferry-log\.html +completed +(2 \(lost\)|1 \(lease expired\))", table, re.MULTILINE)
    wait_until(lambda: left_running(tmp_path) == [], 10, "the end of every process")
    assert not list(tmp_path.glob("callboard-demo-*"))
    assert not (tmp_path / ".callboard").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_can_be_stopped_in_the_middle(
    demo: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    wait_until(lambda: "running" in shown(tmp_path) or demo.poll() is not None, 45, "a task that runs")
    demo.send_signal(number)

    assert demo.wait(timeout=30) == 130, shown(tmp_path)
    assert "Stopped." in shown(tmp_path)
    wait_until(lambda: left_running(tmp_path) == [], 10, "the end of every process")
    assert not list(tmp_path.glob("callboard-demo-*"))


def test_a_demo_that_is_killed_leaves_nothing_behind(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    wait_until(lambda: "running" in shown(tmp_path) or demo.poll() is not None, 45, "a task that runs")
    demo.kill()
    demo.wait()

    wait_until(lambda: left_running(tmp_path) == [], 20, "the end of every process")
