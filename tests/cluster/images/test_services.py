"""Each image at work: it becomes ready, serves, drains on SIGTERM and exits 0."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import httpx
import pytest

from callboard.records.state import State
from tests.cluster.images.containers import IMAGES, Container, container, run_in_image
from tests.support.board import Board
from tests.support.ports import free_port
from tests.support.waiting import wait_until

KEY = "a-key-for-the-tests-only"
BODIES = {Path(__file__).parent / "bodies.py": "/app/bodies.py"}


def confined(running: Container) -> None:
    """Every process inside is the plain user, can gain nothing, and is filtered."""
    processes = running.processes()
    assert running.pid in processes
    for status in processes.values():
        assert set(status["Uid"].split()) == {"65532"}
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"


def test_the_api(store: dict[str, str]) -> None:
    port = free_port()
    api = {**store, "API_HOST": "127.0.0.1", "API_PORT": str(port), "ADMIN_KEY": KEY}
    with (
        container(IMAGES["api"], api, memory="256m") as running,
        container(IMAGES["worker"], {**store, "APPS": "none"}, memory="256m") as worker,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {KEY}"}, timeout=40
        ) as http,
    ):
        running.await_ready()
        worker.await_ready()
        confined(running)
        assert httpx.get(f"http://127.0.0.1:{port}/v1/tasks").status_code == 401

        body = {"name": "callboard.ping", "payload": {"text": "hello"}}
        wait_until(lambda: http.post("/v1/tasks", json=body).status_code == 202, 10, "the catalog to be read")
        answer = http.post("/v1/tasks", json=body, headers={"Prefer": "wait=20"})
        assert answer.status_code == 200, answer.text + worker.logs()
        assert answer.json()["result"]["text"] == "hello"

        # Asked to stop while somebody listens: the stream ends as a stream should, and so does the container.
        slow = http.post("/v1/tasks", json={"name": "callboard.probe", "payload": {"seconds": 30}}).json()
        with http.stream("GET", f"/v1/tasks/{slow['id']}/events") as stream:
            lines = stream.iter_lines()
            next(lines)
            running.terminate()
            assert all(line is not None for line in lines)
        assert running.await_end() == 0, running.logs()


def test_the_api_refuses_the_world_without_a_key(store: dict[str, str]) -> None:
    """The image listens on every address; so without a key it must not start."""
    with container(IMAGES["api"], {**store, "API_PORT": str(free_port())}, memory="256m") as running:
        assert running.await_end() == 2
        assert "CALLBOARD_ADMIN_KEY" in running.logs()


@pytest.mark.parametrize("part", sorted(IMAGES))
def test_it_ends_at_once_while_it_starts(store: dict[str, str], part: str) -> None:
    """A roll-out that is taken back must not wait for a grace period."""
    with container(IMAGES[part], {**store, "ADMIN_KEY": KEY, "API_PORT": "0"}, memory="384m") as running:
        running.terminate()
        assert running.await_end(15) in {0, 128 + signal.SIGTERM}, running.logs()


def test_the_scheduler(store: dict[str, str], board: Board) -> None:
    with container(IMAGES["scheduler"], store, memory="128m") as running:
        running.await_ready()
        confined(running)
        # Nobody else is here to move a due task on, or to count it.
        [task_id] = board.submit("letters.send", queue="letters", delay_ms=300)
        board.await_state([task_id], State.QUEUED)
        demand = 'callboard_queue_demand_slots{queue="letters"} 1.0'
        wait_until(lambda: demand in running.metrics(), 20, "the demand to be shown", poll=0.2)
        running.terminate()
        assert running.await_end() == 0, running.logs()


def test_the_worker_with_the_shipped_applications(store: dict[str, str], board: Board) -> None:
    with container(IMAGES["worker"], store, memory="384m") as running:
        running.await_ready(90)
        confined(running)
        [task_id] = board.submit("callboard.ping", payload={"text": "hello"})
        [record] = board.await_end([task_id])
        assert record.result["text"] == "hello"
        running.terminate()
        assert running.await_end() == 0, running.logs()


def test_the_worker_drains(store: dict[str, str], board: Board) -> None:
    settings = {**store, "APPS": "none", "MODULES": "bodies", "WORKER_SLOTS": "1"}
    with container(IMAGES["worker"], settings, memory="256m", mounts=BODIES) as running:
        running.await_ready()
        first, second = board.submit("bodies.steady", 2, payload={"seconds": 8})
        wait_until(
            lambda: board.record(first).progress or board.record(second).progress, 20, "the first to run"
        )
        confined(running)
        assert running.processes()[running.pid]["Name"] == "tini"
        at_work, waiting = (first, second) if board.state(first) is State.RUNNING else (second, first)
        running.terminate()
        assert running.await_end() == 0, running.logs()

        done = board.record(at_work)
        assert done.state is State.COMPLETED
        assert done.result["uid"] == 65532
        left = board.record(waiting)
        assert left.state is State.QUEUED
        assert left.attempts == ()
        assert board.faults() == []


@pytest.mark.parametrize("part", ["worker", "scheduler"])
def test_the_command_comes_with_it(store: dict[str, str], board: Board, part: str) -> None:
    board.submit("letters.send", queue="letters")
    told = run_in_image(IMAGES[part], "callboard", "doctor", "--json", env=store)
    assert json.loads(told)["faults"] == []


def test_bodies_write_to_tmp_only(store: dict[str, str], board: Board) -> None:
    refused = "OSError: Read-only file system"
    expected = {"/app/x": refused, "/opt/callboard/venv/x": refused, "/tmp/x": "written"}
    settings = {**store, "APPS": "none", "MODULES": "bodies"}
    with container(IMAGES["worker"], settings, memory="256m", mounts=BODIES) as running:
        running.await_ready()
        task_ids = [board.submit("bodies.write", payload={"path": path})[0] for path in expected]
        ends = board.await_end(task_ids)
        assert {record.payload["path"]: record.result for record in ends} == expected
