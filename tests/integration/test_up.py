"""`callboard up` as people run it: real processes, an embedded server, signals."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from callboard.cli.supervisor import Plan, ServiceFailed, Supervisor
from callboard.client import Client
from callboard.records import State
from callboard.storage.embedded import EmbeddedServer
from tests.support.ports import free_port
from tests.support.waiting import wait_until

TASKS = '''
import time
from callboard import current, progress, task

@task(queue="reports")
def double(n: int) -> int:
    """Twice as much."""
    progress(1, 1, "counted")
    return 2 * n

@task(queue="letters", retries=3)
def sleep(seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.05)
    return current().attempt
'''


class Up:
    """A running `callboard up`."""

    def __init__(self, folder: Path, *words: str, **settings: str) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CALLBOARD_")},
            "CALLBOARD_OPS_PORT": str(free_port()),
            "CALLBOARD_WORKER_LEASE_SECONDS": "2",
            "CALLBOARD_WORKER_SLOTS": "2",
            **{f"CALLBOARD_{name.upper()}": value for name, value in settings.items()},
        }
        self.errors: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "callboard", "up", *words],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line.rstrip("\n"))

    @property
    def printed(self) -> str:
        return "\n".join(self.errors)

    def said(self, text: str) -> bool:
        return any(text in line for line in list(self.errors))

    def ready(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(r"callboard is ready: (http://127\.0\.0\.1:\d+)\n", line)
        assert found, f"{line!r}\n{self.printed}"
        return found[1]

    def processes(self) -> list[psutil.Process]:
        """Everything that runs below it, the server and the guard included."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    return tmp_path


@pytest.fixture
def up(folder: Path) -> Iterator[Callable[..., Up]]:
    running: list[Up] = []

    def start(*words: str, **settings: str) -> Up:
        running.append(Up(folder, *words, **settings))
        return running[-1]

    yield start
    for one in running:
        one.close()


def gone(processes: list[psutil.Process]) -> bool:
    return not any(
        process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        for process in processes
        if _known(process)
    )


def doctor(folder: Path) -> dict[str, Any]:
    """What `callboard doctor --json` says in that folder."""
    words = [sys.executable, "-m", "callboard", "doctor", "--json"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 2), done.stderr
    return json.loads(done.stdout) if done.stdout else {"said": done.stderr}


def _known(process: psutil.Process) -> bool:
    try:
        process.status()
    except psutil.NoSuchProcess:
        return False
    return True


def test_a_module_of_tasks_is_served_kept_running_and_stopped_in_order(
    up: Callable[..., Up], folder: Path
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken: int = listener.getsockname()[1]
        one = up("tasks.py", "--port", str(taken))
        url = one.ready()
    assert one.said(f"port {taken} is taken; the API takes {url.rpartition(':')[2]}")
    with Client(url) as client:
        # Just this module, and the platform's own tasks: no application.
        assert [n for n in (e.name for e in client.catalog()) if not n.startswith("callboard.")] == [
            "double",
            "sleep",
        ]
        assert client.wait(client.submit("double", {"n": 21}).id, 20).result == 42
        [worker] = client.workers()
        assert set(worker.queues) == {"callboard", "reports", "letters"}

        # A worker that is killed in the middle: another one starts, and the task runs again.
        sleeper = client.submit("sleep", {"seconds": 3})
        wait_until(lambda: client.task(sleeper.id).state is State.RUNNING, 20, "the start")
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        wait_until(lambda: one.said("was ended by SIGKILL; starting it again"), 30, "the word of it")
        assert client.wait(sleeper.id, 60).result == 2

        # The embedded server too, and what it kept is still there.
        server = next(p for p in one.processes() if "valkey" in p.name() or "redis" in p.name())
        server.kill()
        wait_until(lambda: one.said("the embedded server has died"), 30, "the word of it")
        assert client.wait(client.submit("double", {"n": 1}).id, 60).result == 2
        assert client.task(sleeper.id).state is State.COMPLETED

        # Ctrl-C lets a running task end before its worker does.
        sleeper = client.submit("sleep", {"seconds": 1.5})
        wait_until(lambda: client.task(sleeper.id).state is State.RUNNING, 20, "the start")
    processes = one.processes()
    one.signal(signal.SIGINT)
    assert one.wait() == 0
    assert gone(processes)
    told = [line.partition("|")[0].strip() for line in one.errors]
    assert {"callboard", "api", "worker", "scheduler"} <= set(told)
    last = {
        name: max(i for i, line in enumerate(told) if line == name) for name in ("api", "worker", "scheduler")
    }
    assert last["api"] < last["worker"] < last["scheduler"]
    assert one.process.stdout is not None
    assert one.process.stdout.read() == ""

    # The doctor looks at the data of a platform that stands still, as it does at one that runs.
    assert {fault["code"] for fault in doctor(folder)["faults"]} <= {"stale-claim"}

    # Started anew in the same folder, everything is still there; a second Ctrl-C does not wait.
    again = up("tasks.py", "--port", "0")
    with Client(again.ready()) as client:
        assert doctor(folder)["tasks"] >= 4
        assert client.wait(sleeper.id, 1).state is State.COMPLETED
        long = client.submit("sleep", {"seconds": 100})
        wait_until(lambda: client.task(long.id).state is State.RUNNING, 20, "the start")
    processes = again.processes()
    again.signal(signal.SIGTERM)
    wait_until(lambda: again.said("Draining"), 20, "the drain")
    again.signal(signal.SIGINT)
    assert again.wait(15) == 0
    assert gone(processes)


def test_nothing_outlives_a_supervisor_that_is_killed(up: Callable[..., Up]) -> None:
    one = up("tasks.py", "--port", "0")
    with Client(one.ready()) as client:
        sleeper = client.submit("sleep", {"seconds": 100})
        wait_until(lambda: client.task(sleeper.id).state is State.RUNNING, 20, "the start")
    processes = one.processes()
    assert len(processes) >= 6  # guard, server, API, worker, its child, scheduler
    one.signal(signal.SIGKILL)
    wait_until(lambda: gone(processes), 20, "the end of all")


def test_a_module_that_does_not_import_shows_its_own_traceback(up: Callable[..., Up], folder: Path) -> None:
    (folder / "broken.py").write_text("import math\n\ndef f():\n    return 1 / 0\n\nf()\n", encoding="utf-8")
    one = up("tasks.py", "broken.py")
    assert one.wait() == 2
    assert f'File "{folder}/broken.py", line 4, in f' in one.printed
    assert one.printed.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "callboard/" not in one.printed.replace(str(folder), "")
    assert not (folder / ".callboard").exists()
    assert "There is nothing to check" in doctor(folder)["said"]


def test_a_module_that_hangs_can_be_given_up(up: Callable[..., Up], folder: Path) -> None:
    hint = folder / "importing"
    (folder / "endless.py").write_text(
        f"import pathlib, signal\npathlib.Path({str(hint)!r}).touch()\nwhile True: signal.pause()\n",
        encoding="utf-8",
    )
    one = up("endless.py")
    wait_until(hint.exists, 20, "the import")
    one.signal(signal.SIGTERM)
    assert one.wait() == 0
    assert not (folder / ".callboard").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.py"], "there is no file"),
        (["no.such.module"], "no module is named 'no'"),
        (["my tasks.py"], "has a blank or a comma in its name"),
    ],
)
def test_modules_that_are_not_there(up: Callable[..., Up], folder: Path, words: list[str], said: str) -> None:
    (folder / "my tasks.py").write_text(TASKS, encoding="utf-8")
    one = up(*words)
    assert one.wait() == 2
    assert said in one.printed
    assert len(one.errors) == 1


def test_a_service_that_cannot_start_stops_all(up: Callable[..., Up], folder: Path) -> None:
    # A key too short for the setting is told before anything starts, in one line.
    one = up("tasks.py", admin_key="short")
    assert one.wait() == 2
    [line] = one.errors
    assert line.startswith("callboard: CALLBOARD_ADMIN_KEY: expected 16 characters or more, without spaces;")
    # Without a key the API refuses an address that others reach.
    other = up("tasks.py", "--port", "0", api_host="0.0.0.0")
    assert other.wait() == 2
    assert other.said("callboard: The api ended with exit code 2 while it was starting.")
    wait_until(lambda: not (folder / ".callboard" / "server.sock").exists(), 30, "the server's end")


def test_a_redis_that_must_not_be_used_is_told_without_a_traceback_of_ours(
    up: Callable[..., Up], start_server: Callable[..., EmbeddedServer]
) -> None:
    evicting = start_server(config={"maxmemory-policy": "allkeys-lru"})
    one = up("tasks.py", "--port", "0", redis_url=evicting.url)
    assert one.wait() == 4
    assert one.said("maxmemory-policy allkeys-lru: when its memory is full it would silently delete tasks.")
    assert not one.said("Traceback")


def test_a_worker_for_each_queue_and_without_the_scheduler(
    up: Callable[..., Up], redis_url: str, namespace: str
) -> None:
    one = up("tasks.py", "--split", "--port", "0", "--no-scheduler", redis_url=redis_url, namespace=namespace)
    with Client(one.ready()) as client:
        served = {worker.queues for worker in client.workers()}
        assert {tuple(q for q in queues if q != "callboard") for queues in served} == {
            ("reports",),
            ("letters",),
        }
        assert client.wait(client.submit("double", {"n": 4}).id, 20).result == 8
    one.signal(signal.SIGTERM)
    assert one.wait() == 0
    assert one.said("worker:reports |")
    assert one.said("worker:letters |")
    assert not one.said("scheduler")
    assert one.said("uses the Redis that CALLBOARD_REDIS_URL names")


def test_code_that_changes_reaches_the_workers(up: Callable[..., Up], folder: Path) -> None:
    one = up("tasks.py", "--reload", "--port", "0", "--no-scheduler")
    with Client(one.ready()) as client:

        def doubled() -> Any:
            return client.wait(client.submit("double", {"n": 2}).id, 30).result

        assert doubled() == 4
        # A body that does not end goes back to its queue, at no attempt, and runs again with the new code.
        sleeper = client.submit("sleep", {"seconds": 100})
        wait_until(lambda: client.task(sleeper.id).state is State.RUNNING, 20, "the start")
        changed = TASKS.replace("2 * n", "3 * n").replace("+ seconds", "+ seconds / 1000")
        (folder / "tasks.py").write_text(changed, encoding="utf-8")
        wait_until(lambda: one.said("tasks.py changed; restarting the workers"), 20, "the word of it")
        wait_until(lambda: doubled() == 6, 30, "the new code")
        slept = client.wait(sleeper.id, 30)
        assert (slept.result, [stop.cause for stop in slept.interruptions]) == (1, ["shutdown"])
        (folder / "tasks.py").write_text("def broken(:\n", encoding="utf-8")
        wait_until(lambda: one.said("does not load; the workers keep the old code"), 20, "the refusal")
        assert one.said("SyntaxError")
        assert doubled() == 6
    one.signal(signal.SIGINT)
    assert one.wait() == 0


def test_the_supervisor_from_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    environment = {"CALLBOARD_DATA_DIR": str(folder / "data"), "CALLBOARD_OPS_PORT": "0"}
    with (folder / "out").open("w+") as output:
        with Supervisor(
            Plan(modules=["tasks.py"], port=0, slots=1, environment=environment), output=output
        ) as one:
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", one.url)
            assert list(one.workers) == ["worker"]
            assert one.worker_pids == [one.workers["worker"]]
            with Client(one.url) as client:
                assert client.workers()[0].slots == 1
                assert client.workers()[0].pid == one.worker_pids[0]
            one.restart_workers()
            wait_until(lambda: one.worker_pids, 30, "the new worker")
            started = [psutil.Process(pid) for pid in one.worker_pids]
            started += [child for process in started for child in process.children(recursive=True)]
        one.stop()
    wait_until(lambda: gone(started), 30, "the end of what it started")


def test_a_supervisor_whose_service_dies_at_the_start(
    folder: Path, redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    environment = {
        "CALLBOARD_REDIS_URL": redis_url,
        "CALLBOARD_NAMESPACE": namespace,
        "CALLBOARD_OPS_PORT": "0",
    }
    (folder / "tasks.py").write_text(
        textwrap.dedent(
            """
            import os, sys
            from callboard import task
            if "callboard_worker" in " ".join(sys.orig_argv): os._exit(7)
            @task
            def nothing() -> None: ...
            """
        )
    )
    with (folder / "out").open("w+") as output:
        supervisor = Supervisor(Plan(modules=["tasks.py"], port=0, environment=environment), output=output)
        with pytest.raises(ServiceFailed, match="The worker ended with exit code 7"):
            supervisor.start(60)
    assert supervisor.worker_pids == []
