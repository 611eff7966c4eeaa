"""Queues, workers and the catalog over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from callboard import clock
from callboard.catalog import presence
from callboard.catalog.presence import Presence
from tests.support.api_server import RunningApi, publish, running_api


@pytest.fixture
def api(redis_url: str) -> Iterator[RunningApi]:
    with running_api(redis_url) as running:
        yield running


def show_worker(api: RunningApi, task_id: str | None = None) -> None:
    tasks = []
    if task_id is not None:
        tasks = [
            {"id": task_id, "name": "add", "queue": "sums", "attempt": 1, "started_at": clock.now_ms()},
        ]
    worker = Presence(
        id="host-abc123", host="host", pid=7, version="1", since=clock.now_ms(), queues=["sums"], slots=4,
        busy=len(tasks), tasks=tasks, memory_bytes=5,
    )  # fmt: skip
    api.connection.run(presence.show(api.connection.keys, worker))


class TestQueues:
    def test_a_queue_that_only_the_catalog_knows_is_shown_empty(self, api: RunningApi) -> None:
        items = api.http.get("/v1/queues").json()["items"]
        assert [item["name"] for item in items] == ["mail", "sums"]
        queue = api.http.get("/v1/queues/mail").json()
        assert queue["depth"] == dict.fromkeys(
            ("pending", "queued", "running", "completed", "failed", "cancelled"), 0
        )
        assert (queue["paused"], queue["workers"], queue["demand_slots"]) == (False, 0, 0)

    def test_depth_age_pace_and_slots(self, api: RunningApi) -> None:
        for _ in range(3):
            api.submit()
        api.submit(delay_seconds=60)
        done, running = api.hand.claim(most=2)
        api.hand.complete(done)
        show_worker(api, running)
        queue = api.http.get("/v1/queues/sums").json()
        assert queue["depth"] == {
            "pending": 1, "queued": 1, "running": 1, "completed": 1, "failed": 0, "cancelled": 0,
        }  # fmt: skip
        assert queue["oldest_ready_age_seconds"] >= 0
        assert (queue["finished"], queue["failed"]) == (1, 0)
        assert queue["throughput_per_second"] > 0
        assert set(queue["wait_ms"]) == set(queue["run_ms"]) == {"p50", "p95", "p99"}
        assert queue["slots"] == {"busy": 1, "total": 4}
        assert queue["workers"] == 1
        assert queue["demand_slots"] == 2

    def test_pause_and_resume(self, api: RunningApi) -> None:
        api.submit()
        for _ in range(2):
            answer = api.http.post("/v1/queues/sums/pause")
            assert (answer.status_code, answer.json()["paused"]) == (200, True)
        assert api.hand.claim() == []
        api.submit()  # still accepted
        answer = api.http.post("/v1/queues/sums/resume", json={})
        assert (answer.status_code, answer.json()["paused"]) == (200, False)
        assert len(api.hand.claim()) == 1

    def test_purge_drops_one_state(self, api: RunningApi) -> None:
        queued = [api.submit()["id"] for _ in range(5)]
        pending = api.submit(delay_seconds=60)["id"]
        answer = api.http.post("/v1/queues/sums/purge", json={"state": "queued"})
        assert answer.status_code == 200
        assert answer.json() == {"queue": "sums", "state": "queued", "purged": 5}
        assert all(api.http.get(f"/v1/tasks/{task}").status_code == 404 for task in queued)
        assert api.task(pending)["state"] == "pending"

    def test_running_tasks_are_not_purged(self, api: RunningApi) -> None:
        api.submit()
        [task] = api.hand.claim()
        answer = api.http.post("/v1/queues/sums/purge", json={"state": "running"})
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict-state")
        assert api.task(task)["state"] == "running"

    @pytest.mark.parametrize(
        "body", [{}, {"state": "done"}, {"state": ["queued"]}, {"state": "queued", "x": 1}, []]
    )
    def test_a_bad_purge_drops_nothing(self, api: RunningApi, body: Any) -> None:
        task = api.submit()["id"]
        assert api.http.post("/v1/queues/sums/purge", json=body).status_code == 422
        assert api.task(task)["state"] == "queued"

    @pytest.mark.parametrize("name", ["nowhere", "sumz", "a b", "%7b", "x" * 200, "-"])
    def test_an_unknown_queue_in_a_path_is_404(self, api: RunningApi, name: str) -> None:
        assert api.http.get(f"/v1/queues/{name}").status_code == 404
        for action, body in (("pause", {}), ("resume", {}), ("purge", {"state": "queued"})):
            answer = api.http.post(f"/v1/queues/{name}/{action}", json=body)
            assert answer.status_code == 404, answer.text
        assert "nowhere" not in {item["name"] for item in api.http.get("/v1/queues").json()["items"]}

    def test_the_nearest_is_named(self, api: RunningApi) -> None:
        assert "Did you mean 'sums'?" in api.http.get("/v1/queues/sumz").json()["detail"]


class TestWorkers:
    def test_the_living_are_listed(self, api: RunningApi) -> None:
        assert api.http.get("/v1/workers").json() == {"items": [], "next_cursor": None}
        task = api.submit()["id"]
        show_worker(api, task)
        [worker] = api.http.get("/v1/workers").json()["items"]
        assert worker["id"] == "host-abc123"
        assert (worker["slots"], worker["busy"], worker["queues"]) == (4, 1, ["sums"])
        assert worker["tasks"][0]["id"] == task
        assert worker["tasks"][0]["started_at"].endswith("Z")


class TestCatalog:
    def test_entries_have_what_a_client_needs(self, api: RunningApi) -> None:
        items = {item["name"]: item for item in api.http.get("/v1/catalog").json()["items"]}
        assert set(items) == {"add", "anything", "endless", "mail.send"}
        entry = api.http.get("/v1/catalog/mail.send").json()
        assert entry == items["mail.send"]
        assert (entry["queue"], entry["priority"], entry["retries"]) == ("mail", 2, 1)
        assert entry["schema"]["required"] == ["to"]
        assert entry["published_by"] == "tests-1"
        assert items["endless"]["max_attempts"] is None

    def test_an_unknown_name_is_404_with_the_nearest(self, api: RunningApi) -> None:
        answer = api.http.get("/v1/catalog/mail.sent")
        assert answer.status_code == 404
        assert "Did you mean 'mail.send'?" in answer.json()["detail"]

    def test_what_a_worker_has_just_published_is_there(self, redis_url: str) -> None:
        with running_api(redis_url, prepare=lambda _: None) as api:
            assert api.http.get("/v1/catalog").json()["items"] == []
            publish(api.connection)
            assert len(api.http.get("/v1/catalog").json()["items"]) == 4

    def test_a_task_that_was_looked_for_too_early_can_be_submitted_at_once(self, redis_url: str) -> None:
        with running_api(redis_url, prepare=lambda _: None) as api:
            body = {"name": "add", "payload": {"a": 1}}
            assert api.http.post("/v1/tasks", json=body).status_code == 422
            publish(api.connection)
            assert api.http.post("/v1/tasks", json=body).status_code == 202
