"""A task over its memory limit, or over the container's, is a failed attempt; the container lives."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from callboard.records.state import State
from tests.cluster.images.containers import CONFINED, ENVIRONMENT, IMAGES, container
from tests.support.board import Board
from tests.support.waiting import wait_until

BODIES = {Path(__file__).parent / "bodies.py": "/app/bodies.py"}
MEMORY_MIB = 256


def test_the_limit_on_a_container_is_the_kernels(tmp_path: Path) -> None:
    """Else the tests below would show nothing."""
    words = ["podman", "run", "--rm", *CONFINED, "--memory=96m", "--memory-swap=96m"]
    words += ["--entrypoint=/opt/callboard/venv/bin/python", IMAGES["worker"], "-c"]
    for mebibytes, status in ((20, 0), (300, 137)):
        code = f"held = b'x' * ({mebibytes} << 20)"
        done = subprocess.run([*words, code], env=ENVIRONMENT, cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == status, done.stderr


@pytest.mark.parametrize(
    ("name", "mebibytes", "errors"),
    [
        # Whichever comes first: the allocation that is refused, or the look at what the child holds.
        ("bodies.hoard", 150, ("MemoryError", "MemoryLimitExceeded")),
        ("bodies.unlimited", 2 * MEMORY_MIB, ("OutOfMemory",)),
    ],
    ids=["its own limit", "the container's limit"],
)
def test_a_task_over_a_limit_fails_alone(
    store: dict[str, str], board: Board, name: str, mebibytes: int, errors: tuple[str, ...]
) -> None:
    settings = {**store, "APPS": "none", "MODULES": "bodies", "WORKER_SLOTS": "2"}
    with container(IMAGES["worker"], settings, memory=f"{MEMORY_MIB}m", mounts=BODIES) as running:
        running.await_ready()
        first = running.pid
        [beside] = board.submit("bodies.steady", payload={"seconds": 5})
        wait_until(lambda: board.record(beside).progress, 20, "the sibling to run")

        [greedy] = board.await_end(
            board.submit(name, payload={"mebibytes": mebibytes}, max_attempts=1), timeout=60
        )
        assert greedy.state is State.FAILED
        assert greedy.error is not None
        assert greedy.error["type"] in errors
        assert [attempt.outcome for attempt in greedy.attempts] == ["memory"]

        # The sibling never noticed, and neither did the container.
        [record] = board.await_end([beside])
        assert record.state is State.COMPLETED
        assert record.attempt == 1
        assert record.interruptions == ()
        [after] = board.await_end(board.submit("bodies.hoard", payload={"mebibytes": 16}))
        assert after.result == 16
        assert running.pid == first
        assert running.ready()
        running.terminate()
        assert running.await_end() == 0, running.logs()
