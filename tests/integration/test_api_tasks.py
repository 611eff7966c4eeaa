"""The routes of one task and of lists: look, steer."""

from __future__ import annotations

from typing import Any

import pytest

from callboard import clock
from tests.support.api_server import RunningApi, running_task

UNKNOWN = "sums_01jdk3m8x0v7r9c2q4w6t8y1za"


class TestOne:
    def test_unknown_ids_are_404_whatever_they_look_like(self, api: RunningApi) -> None:
        for task_id in (
            UNKNOWN,
            "nowhere_01jdk3m8x0v7r9c2q4w6t8y1za",
            "x",
            "_",
            "%00",
            "..%2f",
            "ключ",
            "a" * 5000,
        ):
            for path in ("", "/logs", "/events"):
                answer = api.http.get(f"/v1/tasks/{task_id}{path}")
                assert answer.status_code == 404, (task_id, path, answer.text)
                assert answer.json()["code"] == "not-found"
            for action in ("cancel", "retry", "resubmit"):
                assert api.http.post(f"/v1/tasks/{task_id}/{action}").status_code == 404
            assert api.http.delete(f"/v1/tasks/{task_id}").status_code == 404

    def test_a_task_shows_its_life(self, api: RunningApi) -> None:
        task_id = running_task(api)
        task = api.task(task_id)
        assert (task["state"], task["attempt"], task["worker"]) == ("running", 1, "tests-1")
        api.hand.note(task_id, progress={"current": 3, "total": 10, "message": "rows"})
        assert api.task(task_id)["progress"] == {
            "current": 3,
            "total": 10,
            "percent": 30.0,
            "message": "rows",
        }
        api.hand.complete(task_id, {"sum": 3})
        task = api.task(task_id)
        assert (task["state"], task["result"]) == ("completed", {"sum": 3})
        assert [attempt["outcome"] for attempt in task["attempts"]] == ["completed"]

    @pytest.mark.parametrize("part", ["mutable", "immutable"])
    def test_one_that_cannot_be_read_says_so_and_when_it_was_made(self, fresh: RunningApi, part: str) -> None:
        made = fresh.submit()
        queue = fresh.connection.keys.queue("sums")
        fresh.connection.client.set(getattr(queue, part)(made["id"].removeprefix("sums_")), b"?garbage")
        shown = fresh.task(made["id"])
        [listed] = fresh.http.get("/v1/tasks").json()["items"]
        for told in (shown, listed):
            assert told["error"]["type"] == "UndecodableRecord"
            assert told["created_at"] == made["created_at"]

    def test_an_etag_saves_the_body(self, api: RunningApi) -> None:
        task_id = api.submit()["id"]
        first = api.http.get(f"/v1/tasks/{task_id}")
        tag = first.headers["etag"]
        again = api.http.get(f"/v1/tasks/{task_id}", headers={"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        api.http.post(f"/v1/tasks/{task_id}/cancel")
        changed = api.http.get(f"/v1/tasks/{task_id}", headers={"If-None-Match": tag})
        assert changed.status_code == 200
        assert changed.headers["etag"] != tag

    def test_logs_go_on_where_they_ended(self, api: RunningApi) -> None:
        task_id = running_task(api)
        path = f"/v1/tasks/{task_id}/logs"
        assert api.http.get(path).json() == {"items": [], "next_after": 0, "dropped": 0}
        api.hand.note(task_id, lines=["one", "two", "three"])
        page = api.http.get(path).json()
        assert [(line["seq"], line["level"], line["message"]) for line in page["items"]] == [
            (1, "info", "one"), (2, "info", "two"), (3, "info", "three"),
        ]  # fmt: skip
        assert api.http.get(path, params={"after": 1, "limit": 1}).json()["next_after"] == 2
        assert [line["seq"] for line in api.http.get(path, params={"after": 2}).json()["items"]] == [3]
        assert api.http.get(path, params={"after": 3}).json() == {"items": [], "next_after": 3, "dropped": 0}


class TestCancel:
    def test_a_waiting_task_is_cancelled_at_once_and_again_is_no_fault(self, api: RunningApi) -> None:
        task_id = api.submit(delay_seconds=60)["id"]
        for _ in range(2):
            answer = api.http.post(f"/v1/tasks/{task_id}/cancel", json={})
            assert answer.status_code == 200
            assert (answer.json()["state"], answer.json()["reason"]) == ("cancelled", "cancelled")

    def test_a_running_one_is_asked(self, api: RunningApi) -> None:
        task_id = running_task(api)
        answer = api.http.post(f"/v1/tasks/{task_id}/cancel", json={"terminate": True})
        assert answer.status_code == 202
        assert answer.json()["state"] == "running"
        assert answer.json()["cancel_requested_at"] is not None
        api.hand.cancelled(task_id)
        assert api.http.post(f"/v1/tasks/{task_id}/cancel").status_code == 200

    def test_one_that_has_ended_otherwise_is_a_conflict(self, api: RunningApi) -> None:
        task_id = running_task(api)
        api.hand.complete(task_id)
        answer = api.http.post(f"/v1/tasks/{task_id}/cancel")
        assert answer.status_code == 409
        assert (answer.json()["code"], answer.json()["state"]) == ("conflict-state", "completed")

    @pytest.mark.parametrize("body", [{"terminate": 1}, {"terminat": True}, [], "x", 0, False])
    def test_a_bad_body_cancels_nothing(self, api: RunningApi, body: Any) -> None:
        task_id = api.submit()["id"]
        answer = api.http.post(f"/v1/tasks/{task_id}/cancel", json=body)
        assert answer.status_code == 422
        assert api.task(task_id)["state"] == "queued"


class TestAgain:
    def test_retry_keeps_the_id_and_grants_the_contracts_attempts(self, fresh: RunningApi) -> None:
        task_id = running_task(fresh)
        fresh.hand.fail(task_id)
        failed = fresh.task(task_id)
        assert (failed["state"], failed["reason"]) == ("failed", "permanent")
        assert failed["error"]["message"] == "boom"
        answer = fresh.http.post(f"/v1/tasks/{task_id}/retry")
        assert answer.status_code == 202
        task = answer.json()
        assert (task["id"], task["state"], task["attempt"], task["max_attempts"]) == (task_id, "queued", 1, 5)
        assert len(task["attempts"]) == 1
        assert fresh.http.post(f"/v1/tasks/{task_id}/retry").status_code == 409

    def test_a_completed_task_cannot_be_retried(self, api: RunningApi) -> None:
        task_id = running_task(api)
        api.hand.complete(task_id)
        answer = api.http.post(f"/v1/tasks/{task_id}/retry", json={})
        assert answer.status_code == 409
        assert api.http.post(f"/v1/tasks/{task_id}/retry", json={"x": 1}).status_code == 422

    def test_resubmit_makes_a_new_task_like_the_old(self, api: RunningApi) -> None:
        old = api.submit(tags=["nightly"], priority=7, fairness_key="team-b")
        answer = api.http.post(f"/v1/tasks/{old['id']}/resubmit")
        assert answer.status_code == 202
        task = answer.json()
        assert task["id"] != old["id"]
        assert answer.headers["location"] == f"/v1/tasks/{task['id']}"
        assert task["resubmitted_from"] == old["id"]
        same = ("name", "queue", "payload", "tags", "priority", "fairness_key", "owner", "max_attempts")
        assert {name: task[name] for name in same} == {name: old[name] for name in same}

    def test_resubmit_takes_what_shall_differ(self, api: RunningApi) -> None:
        old = api.submit()
        body = {"payload": {"a": 9}, "priority": 1, "queue": "mail", "delay_seconds": 30, "max_attempts": 2}
        task = api.http.post(f"/v1/tasks/{old['id']}/resubmit", json=body).json()
        assert task["payload"] == {"a": 9}
        assert (task["priority"], task["queue"], task["state"]) == (1, "mail", "pending")
        assert task["max_attempts"] == 2
        assert task["id"].startswith("mail_")

    def test_resubmit_checks_the_new_payload(self, api: RunningApi) -> None:
        old = api.submit()
        answer = api.http.post(f"/v1/tasks/{old['id']}/resubmit", json={"payload": {"a": "x"}})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "#/payload/a"
        assert api.http.post(f"/v1/tasks/{old['id']}/resubmit", json={"name": "add"}).status_code == 422

    def test_delete_takes_what_has_ended(self, api: RunningApi) -> None:
        task_id = running_task(api)
        answer = api.http.delete(f"/v1/tasks/{task_id}")
        assert (answer.status_code, answer.json()["state"]) == (409, "running")
        api.hand.complete(task_id)
        answer = api.http.delete(f"/v1/tasks/{task_id}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert api.http.get(f"/v1/tasks/{task_id}").status_code == 404


class TestList:
    def test_newest_first_in_pages_without_gap_or_repeat(self, fresh: RunningApi) -> None:
        bodies = [{"name": "add", "payload": {"a": n}, "queue": ("sums", "mail")[n % 2]} for n in range(25)]
        for body in bodies:
            fresh.http.post("/v1/tasks", json=body)
        seen: list[str] = []
        cursor: str | None = None
        while True:
            params: dict[str, Any] = {"limit": 10} | ({"cursor": cursor} if cursor else {})
            page = fresh.http.get("/v1/tasks", params=params).json()
            assert page["complete"] is True
            seen += [task["id"] for task in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert len(seen) == len(set(seen)) == 25
        newest = fresh.http.get("/v1/tasks", params={"limit": 1, "include": "payload"}).json()["items"]
        assert newest[0]["payload"] == {"a": 24}

    def test_lists_leave_out_what_is_long_unless_asked(self, fresh: RunningApi) -> None:
        task_id = running_task(fresh)
        fresh.hand.fail(task_id)
        [short] = fresh.http.get("/v1/tasks").json()["items"]
        assert not {"payload", "result", "attempts"} & set(short)
        for include in ("payload,result,attempts", ["payload", "result", "attempts"]):
            [whole] = fresh.http.get("/v1/tasks", params={"include": include}).json()["items"]
            assert whole == fresh.task(task_id)

    def test_filters(self, fresh: RunningApi) -> None:
        a = fresh.submit(tags=["red"])["id"]
        b = fresh.submit("mail.send", {"to": "somebody@example.org"})["id"]
        c = fresh.submit(delay_seconds=60)["id"]
        fresh.http.post(f"/v1/tasks/{a}/cancel")
        middle = fresh.task(b)["created_at"]

        def ids(**params: Any) -> set[str]:
            page = fresh.http.get("/v1/tasks", params=params)
            assert page.status_code == 200, page.text
            return {task["id"] for task in page.json()["items"]}

        assert ids() == {a, b, c}
        assert ids(state="cancelled") == {a}
        assert ids(state=["pending", "queued"]) == {b, c}
        assert ids(state="pending,queued") == {b, c}
        assert ids(queue="mail") == {b}
        assert ids(queue="nowhere") == set()
        assert ids(name="mail.send") == {b}
        assert ids(tag="red") == {a}
        assert ids(owner="default") == {a, b, c}
        assert ids(owner="somebody") == set()
        assert ids(q="SomeBody@") == {b}
        assert ids(created_after="2100-01-01T00:00:00Z") == set()
        assert c in ids(created_after=middle)
        later = clock.rfc3339(clock.parse_rfc3339(middle) + 60_000).replace("Z", "+00:00")
        assert ids(created_before=later) == {a, b, c}
        page = fresh.http.get("/v1/tasks", params={"name": "add"}).json()
        assert page["scanned"] == 3

    @pytest.mark.parametrize(
        ("params", "named"),
        [
            ("colour=red", "?colour"), ("state=done", "?state"), ("limit=0", "?limit"),
            ("limit=201", "?limit"), ("limit=1e1", "?limit"), ("limit=%2B5", "?limit"),
            ("limit=1&limit=2", "?limit"),
            ("created_after=yesterday", "?created_after"), ("include=all", "?include"),
            ("cursor=zzz", "?cursor"),
            ("cursor=W10", "?cursor"), ("name=a&name=b", "?name"), ("q=" + "x" * 3000, "?q"),
        ],
    )  # fmt: skip
    def test_bad_queries_are_named(self, api: RunningApi, params: str, named: str) -> None:
        answer = api.http.get(f"/v1/tasks?{params}")
        assert answer.status_code == 422, answer.text
        assert answer.json()["code"] == "invalid-query"
        assert answer.json()["errors"][0]["pointer"] == named

    def test_a_query_that_is_no_text_is_refused(self, api: RunningApi) -> None:
        assert api.http.get("/v1/tasks?q=%ff").status_code == 422
        assert api.http.get("/v1/tasks?" + "&".join(["state=queued"] * 500)).status_code == 422

    def test_routes_without_parameters_take_none(self, api: RunningApi) -> None:
        for path in ("/v1/queues", "/v1/workers", "/v1/catalog", "/livez", f"/v1/tasks/{UNKNOWN}"):
            assert api.http.get(path, params={"x": "1"}).status_code == 422
        assert api.http.post("/v1/tasks?dry_run=1", json={"name": "anything"}).status_code == 422
