"""What the demo concludes from a platform that does well, and from platforms that do not.

The platform is played by a script (the worker that is killed is a real process), because a good one
cannot be made to lose a task. The whole demo on the real one is in test_demo.py.
"""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from callboard import clock
from callboard.cli.demo import performance
from callboard.cli.demo.performance import _Performance
from callboard.cli.demo.site import Expectation, SitePage
from callboard.client import Worker

PAGES = (
    SitePage("/slow.html", Expectation("completed"), behaviour="slow", seconds=9),
    SitePage("/gone.html", Expectation("failed", reason="permanent", says="404")),
    *(SitePage(f"/{i}.html", Expectation("completed", fields={"title": str(i)})) for i in range(3)),
)


class PlayedSite:
    url = "http://site.test"
    pages = PAGES


class PlayedPlatform:
    """Answers as the API would: short tasks end at the first look, the slow one after the worker's death."""

    url = "http://api.test"

    def __init__(self, worker: subprocess.Popen[bytes]) -> None:
        self.worker = worker
        self.forgets: set[str] = set()
        self.rerun = True
        self.titles = {f"t{number}": page.path[1:-5] for number, page in enumerate(PAGES)}
        self.looks_after_death = 0

    def submit(self, payloads: list[dict[str, Any]]) -> list[str]:
        assert [payload["url"] for payload in payloads] == [PlayedSite.url + page.path for page in PAGES]
        return list(self.titles)

    def workers(self) -> dict[str, Worker]:
        return {"w1": Worker.read({"id": "w1", "pid": self.worker.pid})}

    def tasks(self) -> dict[str, dict[str, Any]]:
        found = {task_id: self.task(task_id) for task_id in self.titles}
        return {task_id: task for task_id, task in found.items() if task is not None}

    def task(self, task_id: str) -> dict[str, Any] | None:
        if task_id in self.forgets:
            return None
        task: dict[str, Any] = {
            "id": task_id,
            "state": "completed",
            "reason": None,
            "attempt": 1,
            "worker": "w1",
        }
        task |= {"result": {"title": self.titles[task_id], "language": "en", "date": None, "summary": "S."}}
        if task_id == "t1":
            error = {"message": "404 Not Found: the page does not exist"}
            task |= {"state": "failed", "reason": "permanent", "error": error, "result": None}
        if task_id == "t0":
            self.looks_after_death += self.worker.poll() is not None
            if self.looks_after_death < 3:
                task |= {
                    "state": "running",
                    "progress": {"percent": 40.0, "message": "fetching"},
                    "result": None,
                }
            elif self.rerun:
                task |= {"attempt": 2}
        return task


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
    # A supervisor reaps its dead; here somebody has to.
    reaper = threading.Thread(target=process.wait)
    reaper.start()
    yield process
    process.kill()
    reaper.join()


def play(platform: PlayedPlatform) -> tuple[int, str]:
    out = io.StringIO()
    code = _Performance(Console(file=out, width=140), PlayedSite(), platform).run(keep=False)  # type: ignore[arg-type]
    return code, out.getvalue()


def test_a_platform_that_keeps_its_promise(worker: subprocess.Popen[bytes]) -> None:
    code, shown = play(PlayedPlatform(worker))

    assert code == 0
    assert worker.returncode == -9
    assert f"Killed worker w1 (process {worker.pid}) with SIGKILL while it ran /slow.html." in shown
    assert "\n1 worker killed, 0 tasks lost\n" in shown
    assert "All 5 tasks ended as they should" in shown
    assert "1 task that the dead worker held ran again" in shown
    assert "API: http://api.test" in shown


def test_a_task_that_is_forgotten_is_a_lost_one(worker: subprocess.Popen[bytes], impatient: None) -> None:
    platform = PlayedPlatform(worker)
    platform.forgets = {"t3"}

    code, shown = play(platform)

    assert code == 1
    assert "1 worker killed, 1 task lost" in shown
    assert "/1.html: the platform does not know its task any more." in shown


def test_a_task_that_never_ends_is_a_lost_one(worker: subprocess.Popen[bytes], impatient: None) -> None:
    platform = PlayedPlatform(worker)
    platform.looks_after_death = -1_000_000

    code, shown = play(platform)

    assert code == 1
    assert "1 worker killed, 1 task lost" in shown
    assert "/slow.html: ended running instead of completed" in shown


def test_an_interrupted_task_that_did_not_run_again_is_told(worker: subprocess.Popen[bytes]) -> None:
    platform = PlayedPlatform(worker)
    platform.rerun = False

    code, shown = play(platform)

    assert code == 1
    assert "Of 1 interrupted task 0 ran again." in shown


def test_a_wrong_result_fails_the_demo(worker: subprocess.Popen[bytes]) -> None:
    platform = PlayedPlatform(worker)
    platform.titles["t2"] = "something else"

    code, shown = play(platform)

    assert code == 1
    assert "/0.html: title is 'something else' instead of '0'." in shown


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(performance, "_DEADLINE_SECONDS", 1.0)


def test_ctrl_c_while_it_starts_is_a_quiet_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(performance, "Platform", interrupted)
    out = io.StringIO()
    before = clock.monotonic()

    assert performance.perform(console=Console(file=out, width=140)) == 130
    assert "Stopped." in out.getvalue()
    assert clock.monotonic() - before < 5
