"""`Prefer: wait`: a look at a task, or its submit, answered as soon as the task ends."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from callboard_api import completions, waiting
from tests.support.api_server import RunningApi, running_api, running_task
from tests.support.waiting import wait_until


class TestWait:
    def test_it_answers_as_soon_as_the_task_ends(self, fresh: RunningApi) -> None:
        task_id = running_task(fresh)
        answers: list[tuple[float, httpx.Response]] = []

        def wait() -> None:
            with httpx.Client(base_url=fresh.url, timeout=60, verify=False) as http:
                answer = http.get(f"/v1/tasks/{task_id}", headers={"Prefer": "wait=30"})
                answers.append((time.monotonic(), answer))

        waiters = [threading.Thread(target=wait) for _ in range(3)]
        for waiter in waiters:
            waiter.start()
        bells = fresh.platform.completions
        wait_until(
            lambda: fresh.call_in_loop(lambda: sum(len(heard) for heard in bells._bells.values())) == 3,
            description="three waiters",
        )
        wait_until(
            lambda: fresh.call_in_loop(
                lambda: all(bell.held.is_set() for heard in bells._bells.values() for bell in heard)
            ),
            description="a subscription that holds",
        )
        ended = time.monotonic()
        fresh.hand.complete(task_id, 5)
        for waiter in waiters:
            waiter.join(10)
        assert len(answers) == 3
        for at, answer in answers:
            assert answer.status_code == 200
            assert answer.headers["preference-applied"] == "wait=30"
            assert answer.json()["result"] == 5
            assert at - ended < 4.0, "it was told, and did not look again"
        wait_until(lambda: fresh.call_in_loop(lambda: not bells._bells), description="the waiters' leave")

    def test_at_the_end_of_the_time_it_is_202(self, api: RunningApi) -> None:
        task_id = api.submit()["id"]
        began = time.monotonic()
        answer = api.http.get(f"/v1/tasks/{task_id}", headers={"Prefer": "respond-async, wait=1"})
        assert answer.status_code == 202
        assert answer.json()["state"] == "queued"
        assert 0.9 < time.monotonic() - began < 20

    def test_a_failed_task_has_ended_too(self, fresh: RunningApi) -> None:
        task_id = running_task(fresh)
        fresh.hand.fail(task_id)
        answer = fresh.http.get(f"/v1/tasks/{task_id}", headers={"Prefer": "wait=50"})
        assert (answer.status_code, answer.json()["state"]) == (200, "failed")

    @pytest.mark.parametrize(
        "prefer", ["wait", "wait=", "wait=x", "wait=-1", "wait=1.5", "await=5", "return=minimal"]
    )
    def test_nonsense_is_ignored(self, api: RunningApi, prefer: str) -> None:
        answer = api.http.get(f"/v1/tasks/{api.submit()['id']}", headers={"Prefer": prefer})
        assert answer.status_code == 200
        assert "preference-applied" not in answer.headers

    def test_more_than_50_seconds_are_50(self, fresh: RunningApi) -> None:
        task_id = running_task(fresh)
        fresh.hand.complete(task_id)
        answer = fresh.http.get(f"/v1/tasks/{task_id}", headers={"Prefer": 'wait="99999"'})
        assert answer.headers["preference-applied"] == "wait=50"

    def test_a_notice_that_is_lost_is_made_up_for(self, fresh: RunningApi) -> None:
        task_id = running_task(fresh)
        fresh.submit()
        platform = fresh.platform
        # As if the subscription's connection had just died: nothing is heard.
        platform.completions._heard = lambda message: None
        answers: list[httpx.Response] = []

        def wait() -> None:
            with httpx.Client(base_url=fresh.url, timeout=60, verify=False) as http:
                answers.append(http.get(f"/v1/tasks/{task_id}", headers={"Prefer": "wait=20"}))

        waiter = threading.Thread(target=wait)
        waiter.start()
        wait_until(lambda: fresh.call_in_loop(lambda: bool(platform.completions._bells)))
        fresh.hand.complete(task_id)
        waiter.join(30)
        assert answers[0].status_code == 200

    def test_a_submit_that_waits_too_long_is_accepted_as_ever(self, fresh: RunningApi) -> None:
        body = {"name": "add", "payload": {"a": 1}}
        began = time.monotonic()
        answer = fresh.http.post("/v1/tasks", json=body, headers={"Prefer": "wait=1"})
        assert 0.9 < time.monotonic() - began < 20
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")
        assert answer.headers["preference-applied"] == "wait=1"
        assert answer.headers["location"] == f"/v1/tasks/{answer.json()['id']}"
        ignored = fresh.http.post("/v1/tasks", json=body, headers={"Prefer": "wait=x"})
        assert ignored.status_code == 202
        assert "preference-applied" not in ignored.headers

    def test_a_submit_that_is_refused_does_not_wait(self, fresh: RunningApi) -> None:
        answer = fresh.http.post("/v1/tasks", json={"name": "nobody"}, headers={"Prefer": "wait=50"})
        assert answer.status_code == 422

    def test_what_is_deleted_while_its_submitter_waits_was_accepted(
        self, fresh: RunningApi, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(waiting, "_LOOK_AGAIN_SECONDS", 0.5)
        answers: list[httpx.Response] = []

        def submit() -> None:
            body = {"name": "add", "payload": {"a": 1}}
            with httpx.Client(base_url=fresh.url, timeout=60, verify=False) as http:
                answers.append(http.post("/v1/tasks", json=body, headers={"Prefer": "wait=30"}))

        waiter = threading.Thread(target=submit)
        waiter.start()
        [task] = wait_until(lambda: fresh.http.get("/v1/tasks").json()["items"], description="the task")
        wait_until(lambda: fresh.call_in_loop(lambda: bool(fresh.platform.completions._bells)))
        # As if its end and its deletion came between two looks: nobody rings.
        fresh.platform.completions._heard = lambda message: None
        purged = fresh.http.post("/v1/queues/sums/purge", json={"state": "queued"})
        assert purged.json()["purged"] == 1
        waiter.join(20)
        assert (answers[0].status_code, answers[0].json()["id"]) == (202, task["id"])

    def test_the_subscription_is_given_back_and_taken_again(
        self, fresh: RunningApi, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(completions, "_IDLE_SECONDS", 1.0)
        bells = fresh.platform.completions
        for _ in range(2):
            task_id = running_task(fresh)
            answers: list[httpx.Response] = []

            def wait(task_id: str = task_id, answers: list[httpx.Response] = answers) -> None:
                with httpx.Client(base_url=fresh.url, timeout=60, verify=False) as http:
                    answers.append(http.get(f"/v1/tasks/{task_id}", headers={"Prefer": "wait=20"}))

            waiter = threading.Thread(target=wait)
            waiter.start()
            wait_until(
                lambda: fresh.call_in_loop(
                    lambda: any(bell.held.is_set() for heard in bells._bells.values() for bell in heard)
                ),
                description="a subscription that holds",
            )
            fresh.hand.complete(task_id)
            waiter.join(10)
            assert answers[0].status_code == 200
            wait_until(lambda: fresh.call_in_loop(bells._reader.done), description="the reader's end")

    def test_a_shutdown_answers_those_who_wait(self, redis_url: str) -> None:
        with running_api(redis_url) as api:
            task_id = api.submit()["id"]
            answers: list[httpx.Response] = []

            def wait() -> None:
                with httpx.Client(base_url=api.url, timeout=60, verify=False) as http:
                    answers.append(http.get(f"/v1/tasks/{task_id}", headers={"Prefer": "wait=50"}))

            waiter = threading.Thread(target=wait)
            waiter.start()
            wait_until(lambda: api.call_in_loop(lambda: bool(api.platform.completions._bells)))
            api.ask_to_stop()
            waiter.join(20)
            assert answers[0].status_code == 202
            assert api.joined(20)
