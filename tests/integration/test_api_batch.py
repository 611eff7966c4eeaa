"""POST /v1/tasks/batch: many tasks in one request, accepted or refused together."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api_server import RunningApi
from tests.support.problems import faults, refused


class TestBatch:
    def test_items_come_back_in_order(self, api: RunningApi) -> None:
        bodies = [{"name": "add", "payload": {"a": n}, "queue": ("sums", "mail")[n % 2]} for n in range(230)]
        answer = api.http.post("/v1/tasks/batch", json={"tasks": bodies})
        assert answer.status_code == 202, answer.text
        items = answer.json()["items"]
        assert [item["index"] for item in items] == list(range(230))
        for n in (0, 1, 99, 100, 229):
            assert api.task(items[n]["id"])["payload"] == {"a": n}
            assert items[n]["state"] == "queued"

    def test_one_bad_task_refuses_the_batch_and_each_is_named(self, api: RunningApi) -> None:
        depth = api.http.get("/v1/queues/sums").json()["depth"]["queued"]
        bodies = [
            {"name": "add", "payload": {"a": 1}},
            {"name": "add", "payload": {"a": "x"}},
            {"name": "nobody"},
            {"name": "add", "payload": {"a": 1}, "priority": 77},
            5,
        ]
        problem = refused(api, {"tasks": bodies}, path="/v1/tasks/batch")
        assert problem["code"] == "invalid-body"
        assert faults(problem) == {
            ("#/tasks/1/payload/a", "type"),
            ("#/tasks/2/name", "unknown-task"),
            ("#/tasks/3/priority", "invalid"),
            ("#/tasks/4", "type"),
        }
        assert api.http.get("/v1/queues/sums").json()["depth"]["queued"] == depth

    @pytest.mark.parametrize(
        "body", [{}, {"tasks": []}, {"tasks": {}}, {"tasks": [{"name": "anything"}] * 1001}], ids=[*"abcd"]
    )
    def test_a_batch_has_1_to_1000_tasks(self, api: RunningApi, body: Any) -> None:
        problem = refused(api, body, path="/v1/tasks/batch")
        assert faults(problem) == {("#/tasks", "invalid")}

    def test_a_thousand_are_taken(self, api: RunningApi) -> None:
        answer = api.http.post("/v1/tasks/batch", json={"tasks": [{"name": "anything"}] * 1000})
        assert answer.status_code == 202
        assert len({item["id"] for item in answer.json()["items"]}) == 1000

    def test_a_batch_may_be_longer_than_one_task(self, api: RunningApi) -> None:
        task = {"name": "anything", "payload": {"x": "y" * 200_000}}
        answer = api.http.post("/v1/tasks/batch", json={"tasks": [task] * 20})
        assert answer.status_code == 202
        assert refused(api, b" " * (16 * 1024 * 1024 + 1), 413, "/v1/tasks/batch")
