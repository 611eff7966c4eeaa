"""The whole way: API, Redis and a real worker process, over HTTP alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callboard.storage.connection import Connection
from tests.support.api_server import RunningApi, running_api
from tests.support.event_reader import EventReader
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
WAIT = {"Prefer": "wait=30"}


def nothing(connection: Connection) -> None:
    """The worker publishes."""


@pytest.fixture(scope="module")
def api(redis_url: str) -> Iterator[RunningApi]:
    with running_api(redis_url, prepare=nothing) as running:
        settings = {
            "CALLBOARD_REDIS_URL": redis_url,
            "CALLBOARD_NAMESPACE": running.settings.namespace,
            "CALLBOARD_APPS": "none",
            "CALLBOARD_OPS_PORT": "0",
            "CALLBOARD_WORKER_LEASE_SECONDS": "2",
        }
        worker = subprocess.Popen(
            [sys.executable, "-m", "callboard_worker"],
            env={**os.environ, **settings},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_until(
                lambda: running.http.get("/v1/catalog/callboard.ping").status_code == 200,
                timeout=30,
                description="the worker's catalog",
            )
            yield running
        finally:
            worker.terminate()
            output, _ = worker.communicate(timeout=30)
            assert worker.returncode == 0, output


def submit(api: RunningApi, name: str, *, max_attempts: int = 4, **payload: Any) -> str:
    body = {"name": name, "payload": payload, "max_attempts": max_attempts}
    answer = api.http.post("/v1/tasks", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_a_task_is_submitted_runs_and_is_waited_for(api: RunningApi) -> None:
    task_id = submit(api, "callboard.ping", text="hello")
    answer = api.http.get(f"/v1/tasks/{task_id}", headers=WAIT)
    assert answer.status_code == 200
    task = answer.json()
    assert (task["state"], task["result"]) == ("completed", {"text": "hello", "attempt": 1})
    assert task["wait_ms"] >= 0
    assert task["run_ms"] >= 0


@pytest.mark.parametrize(("fail_times", "state"), [(0, "completed"), (1, "failed")])
def test_one_request_submits_and_waits(api: RunningApi, fail_times: int, state: str) -> None:
    body = {
        "name": "callboard.probe",
        "payload": {"seconds": 0.1, "fail_times": fail_times},
        "max_attempts": 1,
    }
    answer = api.http.post("/v1/tasks", json=body, headers=WAIT)
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=30"
    task = answer.json()
    assert answer.headers["location"] == f"/v1/tasks/{task['id']}"
    assert (task["state"], len(task["attempts"])) == (state, 1)
    assert task == api.task(task["id"])


def test_a_task_that_fails_twice_is_followed_to_its_good_end(api: RunningApi) -> None:
    with EventReader(api.url, "/v1/events", queue="callboard") as everything:
        task_id = submit(api, "callboard.probe", seconds=0.4, fail_times=2, steps=2, log_lines=3)
        with EventReader(api.url, f"/v1/tasks/{task_id}/events") as own:
            own.until_ended(40)
            assert own.types[-1] in ("task.completed", "task.snapshot")
            assert own.events[-1].data["state"] == "completed"
            assert {"task.retrying", "task.progressed"} <= set(own.types)
        mine = [frame.event for frame in everything.events if frame.data["id"] == task_id]
        assert mine.count("task.started") == 3
        assert mine.count("task.retrying") == 2
    task = api.task(task_id)
    assert [attempt["outcome"] for attempt in task["attempts"]] == ["failed", "failed", "completed"]
    assert task["attempts"][0]["error"]["type"] == "ProbeFailed"
    lines = api.http.get(f"/v1/tasks/{task_id}/logs").json()["items"]
    assert [line["message"] for line in lines][:3] == ["line 1 of 3", "line 2 of 3", "line 3 of 3"]


def test_a_running_task_is_cancelled(api: RunningApi) -> None:
    task_id = submit(api, "callboard.probe", seconds=60)
    wait_until(lambda: api.task(task_id)["state"] == "running", description="the start")
    [worker] = api.http.get("/v1/workers").json()["items"]
    assert "callboard" in worker["queues"]
    assert api.http.post(f"/v1/tasks/{task_id}/cancel").status_code == 202
    answer = api.http.get(f"/v1/tasks/{task_id}", headers=WAIT)
    assert (answer.json()["state"], answer.json()["reason"]) == ("cancelled", "cancelled")


def test_a_paused_queue_waits(api: RunningApi) -> None:
    api.http.post("/v1/queues/callboard/pause")
    task_id = submit(api, "callboard.ping")
    answer = api.http.get(f"/v1/tasks/{task_id}", headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    api.http.post("/v1/queues/callboard/resume")
    assert api.http.get(f"/v1/tasks/{task_id}", headers=WAIT).json()["state"] == "completed"
