"""Kept processes and the guard, on small real programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from callboard.cli import child as child_module
from callboard.cli.child import Child
from callboard.cli.guard import Guard
from callboard.cli.ports import NoFreePort, free_port
from callboard.errors import InvalidSetting
from tests.support.waiting import wait_until


class Notes:
    """What a supervisor would hear: lines by name, and which processes live."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.living: set[int] = set()
        self.seen: list[int] = []

    def say(self, name: str, line: str) -> None:
        self.lines.append((name, line))

    def watch(self, pid: int, role: str) -> None:
        self.living.add(pid)
        self.seen.append(pid)

    def forget(self, pid: int) -> None:
        self.living.discard(pid)

    def said(self, text: str) -> bool:
        return any(text in line for _, line in self.lines)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def keep(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Child]]:
    monkeypatch.setattr(child_module, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(child_module, "LONGEST_PAUSE_SECONDS", 0.2)
    children: list[Child] = []

    def start(program: str, **options: object) -> Child:
        child = Child(
            "thing",
            [sys.executable, "-c", textwrap.dedent(program)],
            lambda: {**os.environ, "PYTHONUNBUFFERED": "1"},
            say=notes.say,
            watcher=notes,
            **options,  # type: ignore[arg-type]
        )
        children.append(child)
        child.start()
        return child

    yield start
    hurry = threading.Event()
    hurry.set()
    for child in children:
        child.stop(0, hurry)


def stop(child: Child, grace_seconds: float = 10) -> None:
    child.stop(grace_seconds, threading.Event())


LOOP = """
import signal, time
print("up")
while True: signal.pause()
"""

DEAF = """
import signal
signal.signal(signal.SIGTERM, lambda *_: print("not yet"))
print("up")
while True: signal.pause()
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_each_line_comes_with_the_name(keep: Callable[..., Child], notes: Notes) -> None:
    child = keep(
        r"""
        import os, sys, signal
        os.write(1, b"one\ntwo\r\n")
        os.write(2, b"three \xff\n" + b"x" * 70000 + b"\nlast without an end")
        os.close(1), os.close(2)
        signal.pause()
        """
    )
    wait_until(lambda: notes.said("last without an end"), 30, "the last line")
    told = [line for _, line in notes.lines]
    assert {name for name, _ in notes.lines} == {"thing"}
    assert told[:3] == ["one", "two", "three \ufffd"]
    assert "".join(told[3:-1]) == "x" * 70000
    stop(child)
    assert notes.living == set()


def test_what_dies_is_started_again_after_a_growing_pause(keep: Callable[..., Child], notes: Notes) -> None:
    child = keep(
        """
        import os, signal, sys
        print("up")
        if os.getpid() % 2: sys.exit(3)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    wait_until(lambda: child.deaths >= 4, 20, "four deaths")
    stop(child)
    pauses = [line.rpartition(" in ")[2] for _, line in notes.lines if "starting it again" in line]
    assert pauses[:4] == ["0.05 s", "0.1 s", "0.2 s", "0.2 s"]
    assert all(
        "ended with exit code 3" in line or "was ended by SIGKILL" in line
        for _, line in notes.lines
        if line != "up"
    )
    assert len(set(notes.seen)) >= 4
    assert child.pid is None


def test_a_process_that_was_steady_starts_again_soon(
    keep: Callable[..., Child], notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "STEADY_SECONDS", 0)
    child = keep("raise SystemExit(1)")
    wait_until(lambda: child.deaths >= 3, 20, "three deaths")
    stop(child)
    assert {line.rpartition(" in ")[2] for _, line in notes.lines} == {"0.05 s"}


def test_stopping_waits_for_the_end_and_starts_nothing_again(
    keep: Callable[..., Child], notes: Notes
) -> None:
    child = keep(LOOP)
    wait_until(lambda: notes.said("up"), 30, "the start")
    pid = child.pid
    assert pid is not None
    stop(child)
    stop(child)
    assert not alive(pid)
    assert child.deaths == 0
    assert len(notes.seen) == 1
    assert child.ended.is_set()


def test_what_does_not_end_in_its_grace_is_killed(
    keep: Callable[..., Child], notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = keep(DEAF)
    wait_until(lambda: notes.said("up"), 30, "the start")
    monkeypatch.setattr(child_module, "LAST_WORD_SECONDS", 1.0)
    stop(child, 1.0)
    assert child.pid is None
    assert [line for _, line in notes.lines].count("not yet") == 2
    assert notes.said("does not end; killed")


def test_hurry_gives_a_second_signal_and_a_last_word(keep: Callable[..., Child], notes: Notes) -> None:
    child = keep(
        """
        import signal, sys
        def handle(*_):
            print("asked")
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("gave back")))
        signal.signal(signal.SIGTERM, handle)
        print("up")
        while True: signal.pause()
        """
    )
    wait_until(lambda: notes.said("up"), 30, "the start")
    hurry = threading.Event()
    stopping = threading.Thread(target=child.stop, args=(60, hurry))
    stopping.start()
    wait_until(lambda: notes.said("asked"), 30, "the first signal")
    assert stopping.is_alive()
    hurry.set()
    stopping.join(10)
    assert not stopping.is_alive()
    assert notes.said("gave back")
    assert not notes.said("killed")


def test_renewing_is_no_death(keep: Callable[..., Child], notes: Notes) -> None:
    child = keep(LOOP)
    wait_until(lambda: notes.said("up"), 30, "the start")
    former = child.pid
    child.renew(10)
    wait_until(lambda: child.pid not in (None, former), 30, "the new process")
    assert child.deaths == 0
    assert former is not None
    assert not alive(former)


def test_a_stop_between_two_lives_starts_nothing(
    keep: Callable[..., Child], notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "FIRST_PAUSE_SECONDS", 60)
    child = keep("raise SystemExit(1)")
    wait_until(lambda: notes.said("starting it again"), 30, "the death")
    stop(child)
    assert len(notes.seen) == 1


def test_a_pipe_that_a_grandchild_holds_does_not_hold_us(keep: Callable[..., Child], notes: Notes) -> None:
    child = keep(
        """
        import subprocess, sys
        grandchild = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        print("grandchild", grandchild.pid)
        """
    )
    wait_until(lambda: notes.said("starting it again"), 20, "the death")
    stop(child)
    for _, line in notes.lines:
        if line.startswith("grandchild"):
            os.kill(int(line.split()[1]), signal.SIGKILL)


def test_ready_is_what_the_probe_says(keep: Callable[..., Child]) -> None:
    port = free_port("127.0.0.1", 0)
    child = keep(
        f"""
        import http.server
        class Handler(http.server.BaseHTTPRequestHandler):
            calls = 0
            def do_GET(self):
                Handler.calls += 1
                self.send_response(200 if Handler.calls > 2 and self.path == "/readyz" else 503)
                self.end_headers()
            def log_message(self, *_): pass
        http.server.HTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
        """,
        probe=("127.0.0.1", port, "/readyz"),
    )
    answers: list[bool] = []

    def ready() -> bool:
        answers.append(child.ready())
        return answers[-1]

    wait_until(ready, 20, "readiness")
    assert answers.count(False) >= 2
    stop(child)
    assert not child.ready()


def test_the_guard_ends_what_a_killed_supervisor_leaves(tmp_path: Path) -> None:
    supervisor = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                f"""
                import signal, subprocess, sys
                from callboard.cli.guard import Guard
                guard = Guard()
                def start(program, role):
                    child = subprocess.Popen([sys.executable, "-c", program], start_new_session=True,
                        stdout=subprocess.PIPE)
                    child.stdout.readline()
                    guard.watch(child.pid, role)
                    return child.pid
                loop, deaf, server = {LOOP!r}, {DEAF!r}, {LOOP!r}
                forgotten = start(loop, "service")
                guard.forget(forgotten)
                watched = start(loop, "service"), start(deaf, "service"), start(server, "server")
                print(guard.pid, forgotten, *watched)
                sys.stdout.flush()
                signal.pause()
                """
            ),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with supervisor:
        assert supervisor.stdout is not None
        guard, forgotten, *watched = map(int, supervisor.stdout.readline().split())
        os.killpg(os.getpgid(guard), signal.SIGTERM)  # the terminal's signals are not for it
        assert all(map(alive, [guard, forgotten, *watched]))
        supervisor.kill()
    wait_until(lambda: not any(map(alive, [guard, *watched])), 20, "the end of all that was watched")
    assert alive(forgotten)
    os.kill(forgotten, signal.SIGKILL)


def test_a_signal_that_comes_before_the_guard_is_up_does_not_end_it() -> None:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as watched:
        guard = Guard()
        os.kill(guard.pid, signal.SIGTERM)
        guard.watch(watched.pid, "service")
        guard.close()
        assert watched.wait(10) == -signal.SIGTERM


def test_a_guard_that_was_killed_does_not_stop_the_work() -> None:
    guard = Guard()
    os.kill(guard.pid, signal.SIGKILL)
    wait_until(lambda: not alive(guard.pid), 30, "its end")
    guard.watch(os.getpid(), "service")
    guard.forget(os.getpid())
    guard.close()


def test_ports_that_are_taken_are_passed_over() -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken: int = listener.getsockname()[1]
        found = free_port("127.0.0.1", taken)
        assert taken < found <= taken + 100
        assert free_port("127.0.0.1", taken, {found}) not in (taken, found)
    assert free_port("127.0.0.1", 0) > 0
    with pytest.raises(NoFreePort):
        free_port("127.0.0.1", 65535, {65535})
    with pytest.raises(InvalidSetting, match=r"192\.0\.2\.1"):
        free_port("192.0.2.1", 8000)
