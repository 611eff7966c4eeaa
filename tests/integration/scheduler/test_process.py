"""The scheduler as a process: start, probes, outages, signals, and two of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from callboard import clock
from callboard.catalog import timetable
from callboard.catalog.schedule import Schedule
from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from callboard.storage.operation import Command
from callboard_scheduler import timetable as firing
from tests.support import tasks
from tests.support.waiting import wait_until


class Process:
    """One `python -m callboard_scheduler`."""

    def __init__(self, log: Path, url: str | None, namespace: str, extra: Mapping[str, str]) -> None:
        self.log = log
        self._file: IO[bytes] = log.open("wb")
        environment = {
            **os.environ,
            "CALLBOARD_NAMESPACE": namespace,
            "CALLBOARD_OPS_PORT": "0",
            "CALLBOARD_APPS": "none",
            **({"CALLBOARD_REDIS_URL": url} if url else {}),
            **extra,
        }
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "callboard_scheduler"],
            stdout=self._file,
            stderr=self._file,
            env=environment,
        )

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def says(self, words: str, timeout: float = 20) -> None:
        wait_until(lambda: words in self.said, timeout, f"{words!r} in {self.log.name}")

    @property
    def port(self) -> int:
        self.says("Probes and metrics on")
        return int(self.said.partition("Probes and metrics on http://127.0.0.1:")[2].split()[0])

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def ready(self) -> None:
        wait_until(lambda: self.get("/readyz")[0] == 200, 20, "readiness")

    def end(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(10)

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        self._file.close()


Start = Callable[..., Process]


@pytest.fixture
def scheduler(tmp_path: Path, redis_url: str, namespace: str) -> Iterator[Start]:
    """Starts schedulers: `scheduler(url=…, CALLBOARD_…=…)`."""
    started: list[Process] = []

    def start(url: str | None = redis_url, **extra: str) -> Process:
        started.append(Process(tmp_path / f"scheduler-{len(started)}.log", url, namespace, extra))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def connection(redis_url: str, namespace: str) -> Iterator[Connection]:
    made = Connection(redis_url, namespace=namespace)
    yield made
    made.close()


def fired(connection: Connection, queue: str = "q") -> list[str]:
    found = connection.execute(Command("ZRANGE", connection.keys.queue(queue).all, 0, -1))
    return [task.decode() for task in found]


def put(connection: Connection, **options: object) -> None:
    fields = {"id": "s", "task": "a.task", "queue": "q", **options}
    connection.run(timetable.create(connection.keys, Schedule(**fields)))  # type: ignore[arg-type]


def test_it_serves_and_stops(scheduler: Start, connection: Connection) -> None:
    tasks.accept(connection, "q", 2)
    tasks.accept(connection, "delayed", delay_ms=200)
    process = scheduler()
    process.ready()
    assert process.get("/livez") == (200, "ok\n")
    put(connection, interval_seconds=1)
    wait_until(lambda: len(fired(connection)) > 2, description="a firing")
    wait_until(lambda: tasks.size(connection, "delayed", "queued") == 1, description="a promotion")

    def shown() -> bool:
        text = process.get("/metrics")[1]
        return (
            'callboard_tasks{queue="delayed",state="queued"} 1.0' in text
            and 'callboard_queue_demand_slots{queue="delayed"} 1.0' in text
        )

    wait_until(shown, description="figures")
    begun = clock.monotonic()
    assert process.end() == 0
    assert clock.monotonic() - begun < 15
    assert "Stopped." in process.said
    loops = connection.execute(Command("ZRANGE", connection.keys.queue("q").loops, 0, -1))
    assert loops == [], "its leases are given up"
    assert "Traceback" not in process.said


def test_redis_away_at_the_start_is_waited_for(
    scheduler: Start, start_server: Callable[..., EmbeddedServer], namespace: str
) -> None:
    server = start_server()
    server.kill()
    process = scheduler(url=server.url)
    process.says("Redis does not answer")
    assert process.get("/livez")[0] == 200
    assert process.get("/readyz") == (503, "Redis does not answer\n")
    server.start()
    process.ready()
    server.kill()
    wait_until(lambda: process.get("/readyz")[0] == 503, 20, "the outage to be seen")
    assert process.get("/livez")[0] == 200
    server.start()
    process.ready()
    assert process.popen.poll() is None
    password = server.url.partition("://:")[2].partition("@")[0]
    assert password
    assert password not in process.said
    assert process.end() == 0
    assert "Traceback" not in process.said


@pytest.mark.parametrize("state", ["away", "frozen"])
def test_it_stops_in_time_without_redis(
    state: str, scheduler: Start, start_server: Callable[..., EmbeddedServer]
) -> None:
    server = start_server()
    pid = server.pid
    assert pid is not None
    process = scheduler(url=server.url)
    process.ready()
    if state == "away":
        server.kill()
        wait_until(lambda: process.get("/readyz")[0] == 503, 20, "the outage to be seen")
    else:
        os.kill(pid, signal.SIGSTOP)
    try:
        begun = clock.monotonic()
        assert process.end() == 0
        assert clock.monotonic() - begun < 15
    finally:
        if state == "frozen":
            os.kill(pid, signal.SIGCONT)


def test_bad_starts_end_with_one_line(scheduler: Start, start_server: Callable[..., EmbeddedServer]) -> None:
    evicting = start_server(config={"maxmemory-policy": "allkeys-lru"})
    for process, status, told in [
        (scheduler(url=None), 2, "CALLBOARD_REDIS_URL is not set"),
        (scheduler(CALLBOARD_OPS_PROT="1"), 2, "CALLBOARD_OPS_PROT is not a setting. Did you mean"),
        (scheduler(CALLBOARD_APPS="knowlege"), 2, "no application is named 'knowlege'"),
        (scheduler(url=evicting.url), 4, "maxmemory-policy allkeys-lru"),
    ]:
        assert process.popen.wait(20) == status, process.said
        assert told in process.said
        assert "Traceback" not in process.said


def test_schedules_declared_in_a_module_are_put(
    scheduler: Start, connection: Connection, tmp_path: Path
) -> None:
    module = tmp_path / "nightly_tasks.py"
    module.write_text(
        "from callboard import Schedule\n"
        "nightly = Schedule(id='nightly', task='build', queue='q', cron='0 3 * * 1')\n"
    )
    process = scheduler(CALLBOARD_MODULES=f"{module},no_such_module")
    process.says("Put schedules of")
    process.says("Schedules that module no_such_module declares are left out")
    process.ready()

    def planned() -> bool:
        return connection.run(timetable.get(connection.keys, "nightly")).is_planned

    wait_until(planned, description="the plan")
    entry = connection.run(timetable.get(connection.keys, "nightly"))
    assert entry.origin == f"module:{module}"
    assert entry.nominal_ms is not None
    assert process.end() == 0


def test_of_two_schedulers_one_is_killed_at_a_tick_and_each_time_fires_once(
    scheduler: Start, connection: Connection
) -> None:
    both = [scheduler(), scheduler()]
    for process in both:
        process.ready()
    put(connection, interval_seconds=1, misfire="run_all")
    wait_until(lambda: len(fired(connection)) >= 2, description="the first firings")
    before = len(fired(connection))
    wait_until(lambda: len(fired(connection)) > before, description="a tick", poll=0.0005)
    both[0].popen.kill()
    after = len(fired(connection))
    wait_until(lambda: len(fired(connection)) >= after + 3, 20, "the survivor's firings")
    entry = connection.run(timetable.get(connection.keys, "s"))
    connection.run(timetable.change(connection.keys, replace(entry.schedule, paused=True), entry.revision))
    wait_until(
        lambda: connection.run(timetable.get(connection.keys, "s")).is_planned, description="the pause"
    )
    entry = connection.run(timetable.get(connection.keys, "s"))
    assert entry.last_nominal_ms is not None
    count = (entry.last_nominal_ms - entry.created_ms) // 1000
    times = [
        firing.task_id("q", "s", entry.created_ms + 1000 * (k + 1)).rpartition("_")[2]
        for k in range(count + 1)
    ]
    # What fired while the pause came is stored, but the pointer was no longer the scheduler's to move.
    assert set(fired(connection)) in (set(times), set(times[:-1]))
    assert both[1].end() == 0
