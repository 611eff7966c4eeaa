"""Who survives whom: nothing survives the worker, bodies survive the forkserver, zombies survive nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callboard_worker.slots.process import ProcessSlots
from callboard_worker.slots.strays import Strays
from tests.support.processes import alive
from tests.support.recording import Recorder, assignment, run
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]


def start_and_kill(
    modules: list[str],
    tasks: list[tuple[str, dict[str, Any]]],
    *,
    fork: bool = False,
    flags: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Run the tasks in a program of slots, SIGKILL it; what it told of its processes."""
    order = json.dumps({"modules": ["tests.support.bodies", *modules], "tasks": tasks, "fork": fork})
    worker = subprocess.Popen(
        [sys.executable, *flags, "-m", "tests.support.slot_process", order],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert worker.stdout is not None
    with worker, worker.stdout:
        told: dict[str, Any] = json.loads(worker.stdout.readline())
        assert all(alive(pid) for pid in [*told["pids"], told["forkserver"]])
        worker.kill()
    return told


BUSY: list[tuple[str, dict[str, Any]]] = [
    ("slots.sleep", {}),
    ("slots.sleep_async", {}),
    ("slots.swallow", {}),
    ("slots.hold_gil", {}),
    ("slots.leave_behind", {"how": "program"}),
    ("slots.leave_behind", {"how": "fork"}),
]

NO_LIFELINE = "from callboard_worker.slots import kernel\nkernel.kill_on_hangup = lambda lifeline: None\n"
NO_PARENT_SIGNAL = (
    "import os\n"
    "from callboard_worker.slots import kernel\n"
    "kernel.die_with_parent = lambda parent: os.getppid() == parent\n"
)


def test_nothing_survives_a_killed_worker() -> None:
    """Given children that sleep, spin, hold the GIL or have started processes of their own
    When the worker is killed with SIGKILL
    I expect all of them and the forkserver to be gone at once.
    """
    told = start_and_kill([], BUSY)
    started = [int(report) for report in told["reports"][-2:]]
    everybody = [*told["pids"], told["forkserver"], *started]
    assert len(set(everybody)) >= len(BUSY) + 3
    wait_until(lambda: not any(alive(pid) for pid in everybody), 30, "the end of all")


@pytest.mark.parametrize(
    ("patch", "tasks"),
    [
        # The kernel's signal at the parent's death reaches a child alone, whatever it does.
        (NO_LIFELINE, BUSY[:4]),
        # The lifeline takes the whole group along.
        (NO_PARENT_SIGNAL, BUSY),
        # Where the kernel has neither, a thread watches; it cannot where C code holds the GIL.
        (NO_LIFELINE + NO_PARENT_SIGNAL, [BUSY[0], BUSY[2], BUSY[4], BUSY[5]]),
    ],
    ids=["parent-signal", "lifeline", "thread"],
)
def test_each_safeguard_suffices(tmp_path: Path, patch: str, tasks: list[tuple[str, dict[str, Any]]]) -> None:
    (tmp_path / "patch_kernel.py").write_text(patch)
    told = start_and_kill([str(tmp_path / "patch_kernel.py")], tasks)
    started = [int(report) for report in told["reports"] if report]
    everybody = [*told["pids"], *started]
    wait_until(lambda: not any(alive(pid) for pid in everybody), 30, "the end of all")


def test_a_copy_of_the_worker_keeps_nobody_alive() -> None:
    """Such as a process of multiprocessing that a body in a thread slot has forked: it inherits all pipes."""
    told = start_and_kill([], [("slots.sleep", {}), ("slots.leave_behind", {"how": "program"})], fork=True)
    try:
        everybody = [*told["pids"], told["forkserver"], int(told["reports"][1])]
        assert alive(told["fork"])
        wait_until(lambda: not any(alive(pid) for pid in everybody), 30, "the end of all")
    finally:
        os.kill(told["fork"], signal.SIGKILL)


def test_bodies_may_fork_where_warnings_are_errors() -> None:
    """From Python 3.12 on a fork warns of other threads: a child has none, and neither has the forkserver."""
    told = start_and_kill([], BUSY, flags=("-W", "error"))
    everybody = [*told["pids"], *(int(report) for report in told["reports"] if report)]
    wait_until(lambda: not any(alive(pid) for pid in everybody), 30, "the end of all")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def group(recorder: Recorder) -> Iterator[ProcessSlots]:
    group = ProcessSlots(2, recorder, modules=["tests.support.bodies"])
    group.start()
    yield group
    group.close(5)


def test_bodies_survive_the_forkserver_and_new_children_come_from_another(
    group: ProcessSlots, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    body = assignment("slots.sleep", {"seconds": 2})
    group.run(body)
    recorder.await_progress(body)
    former = group.forkserver.pid
    assert former is not None
    os.kill(former, signal.SIGKILL)
    wait_until(lambda: not alive(former), description="the forkserver's end")
    # The other slot has had no child yet. And how a child ends is known without its forkserver.
    crashed = run(group, recorder, assignment("slots.die", {"how": "segfault"}))
    assert crashed.kind == "crashed"
    assert crashed.error is not None
    assert "SIGSEGV" in crashed.error.message
    assert "The forkserver is gone" in caplog.text
    assert group.forkserver.pid not in (None, former)
    assert recorder.outcome(body).kind == "completed"
    assert run(group, recorder, assignment("slots.add", {"left": 1})).kind == "completed"


def test_a_forkserver_that_stalls_is_replaced(
    group: ProcessSlots, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callboard_worker.slots.forkserver._FORK_SECONDS", 0.5)
    monkeypatch.setattr("callboard_worker.slots.forkserver._LEAVE_SECONDS", 0.2)
    run(group, recorder, assignment("slots.who"))
    former = group.forkserver.pid
    assert former is not None
    os.kill(former, signal.SIGSTOP)
    crashed = run(group, recorder, assignment("slots.die", {"how": "exit"}))
    assert crashed.kind == "crashed"
    assert run(group, recorder, assignment("slots.add", {"left": 1})).kind == "completed"
    assert not alive(former)


def test_an_idle_child_that_dies_is_replaced(
    group: ProcessSlots, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    run(group, recorder, assignment("slots.who"))
    pid = group.pids["process-0"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: group.pids.get("process-0") not in (None, pid), description="its successor")
    assert run(group, recorder, assignment("slots.add", {"left": 1})).kind == "completed"
    assert "its idle child was killed by SIGKILL" in caplog.text


def zombies() -> set[int]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in children if not alive(int(pid))}


def test_what_was_killed_with_a_child_is_reaped_soon(group: ProcessSlots, recorder: Recorder) -> None:
    given = assignment("slots.leave_behind", {"how": "program", "then": "exit"})
    run(group, recorder, given)
    left = int(recorder.await_line(given, "left ").split()[1])
    wait_until(lambda: not Path(f"/proc/{left}").exists(), description="the end of its zombie")


def test_adopted_zombies_are_reaped_and_nobody_elses_status_is_stolen(
    group: ProcessSlots, recorder: Recorder
) -> None:
    """Given a daemon that a body left behind, and a program that this process started itself
    When both have ended
    I expect the daemon's zombie to be reaped once it has been there for long, and the program's status kept.
    """
    own = subprocess.Popen(["sh", "-c", "exit 7"])
    before = zombies()
    run(group, recorder, assignment("slots.leave_behind", {"how": "daemon", "then": "nothing"}))
    [daemon] = wait_until(lambda: zombies() - before - {own.pid}, description="the daemon's zombie")
    strays = Strays(group._knows, patience_seconds=100)
    strays.look(0)
    assert daemon not in strays.look(99)
    assert daemon in strays.look(100)
    assert daemon not in zombies()
    assert own.wait(10) == 7
