"""POST /v1/tasks: what is accepted, and what each kind of bad input gets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from callboard import clock, inspector
from callboard.storage.connection import Connection
from callboard_api import catalog
from tests.support.api_server import RunningApi, publish, running_api
from tests.support.problems import faults, refused
from tests.support.waiting import wait_until

DAY = 24 * 3600
KEY: Any = {"Idempotency-Key": '"k"'}


class TestAccepted:
    def test_the_answer_is_the_task_as_a_get_shows_it(self, api: RunningApi) -> None:
        answer = api.http.post("/v1/tasks", json={"name": "add", "payload": {"a": 1, "b": 2}})
        assert answer.status_code == 202
        task = answer.json()
        assert answer.headers["location"] == f"/v1/tasks/{task['id']}"
        assert task["state"] == "queued"
        assert task["payload"] == {"a": 1, "b": 2}
        assert (task["owner"], task["fairness_key"]) == ("default", "default")
        assert api.http.get(answer.headers["location"]).json() == task

    @pytest.mark.parametrize(
        "options",
        [
            {"delay_seconds": 60},
            {"delay_seconds": 0},
            {"run_at": "2030-01-01T00:00:00+01:00"},
            {"run_at": "2001-01-01T00:00:00Z"},
            {"priority": 0, "fairness_key": "team-a", "tags": ["x", "maths", "x"]},
            {"expires_in_seconds": 90, "delay_seconds": 10.5},
            {"max_attempts": None},
            {"max_attempts": 1},
            {"queue": "mail"},
            {"queue": None, "priority": None, "tags": None, "unique": None, "after": None},
        ],
        ids=str,
    )
    def test_options_are_kept_and_the_answer_still_equals_the_record(
        self, api: RunningApi, options: dict[str, Any]
    ) -> None:
        task = api.submit(**options)
        assert api.task(task["id"]) == task

    def test_a_delay_makes_it_pending(self, api: RunningApi) -> None:
        task = api.submit(delay_seconds=60)
        assert (task["state"], task["reason"], task["queued_at"]) == ("pending", "delayed", None)
        created, due = clock.parse_rfc3339(task["created_at"]), clock.parse_rfc3339(task["due_at"])
        assert due - created == 60_000

    def test_what_the_contract_says_holds_unless_the_submit_says_otherwise(self, api: RunningApi) -> None:
        task = api.submit("mail.send", {"to": "a@example.org"})
        assert (task["queue"], task["priority"], task["max_attempts"]) == ("mail", 2, 2)
        created, expires = clock.parse_rfc3339(task["created_at"]), clock.parse_rfc3339(task["expires_at"])
        assert expires - created == 3600_000
        options = {"priority": 9, "max_attempts": 7, "expires_in_seconds": 5, "queue": "sums"}
        other = api.submit("mail.send", {"to": "b@example.org"}, **options)
        assert (other["queue"], other["priority"], other["max_attempts"]) == ("sums", 9, 7)
        assert api.submit("endless", {})["max_attempts"] is None
        assert api.submit(tags=["own"])["tags"] == ["maths", "own"]

    def test_a_payload_may_be_left_out_when_the_schema_allows(self, api: RunningApi) -> None:
        answer = api.http.post("/v1/tasks", json={"name": "anything"})
        assert answer.status_code == 202
        assert answer.json()["payload"] == {}

    def test_any_unicode_survives(self, api: RunningApi) -> None:
        payload = {"ключ": "☃ 𝄞 \u0000 \u2028", "deep": [[{"x": [1.5, -0.0, 1e300, 10**20, None, True]}]]}
        task = api.submit("anything", payload)
        assert api.task(task["id"])["payload"] == payload

    def test_the_trace_context_of_the_request_is_kept(self, api: RunningApi) -> None:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        for header, kept in ((trace, trace), ("nonsense", None)):
            answer = api.http.post(
                "/v1/tasks", json={"name": "add", "payload": {"a": 1}}, headers={"traceparent": header}
            )
            assert answer.json()["traceparent"] == kept

    def test_a_task_that_a_worker_publishes_now_can_be_submitted_now(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # No copy is too old: only the name that is not in it makes it read again.
        monkeypatch.setattr(catalog, "_FRESH_SECONDS", 3600)
        monkeypatch.setattr(catalog, "_STALE_SECONDS", 3600)
        with running_api(redis_url, prepare=lambda connection: None) as api:
            problem = refused(api, {"name": "add", "payload": {"a": 1}})
            assert "no worker has published any task" in problem["detail"]
            publish(api.connection)
            body = {"name": "add", "payload": {"a": 1}}
            assert api.http.post("/v1/tasks", json=body).status_code == 202

    def test_a_submit_is_one_call_of_redis(self, api: RunningApi) -> None:
        api.submit()
        before = api.connection.client.info("commandstats")
        count = 20
        for _ in range(count):
            api.submit()
        after = api.connection.client.info("commandstats")

        def calls(name: str) -> int:
            return after.get(name, {"calls": 0})["calls"] - before.get(name, {"calls": 0})["calls"]

        assert calls("cmdstat_evalsha") >= count
        # Nothing else grows with the number of submits: the catalog is read about once a second.
        assert calls("cmdstat_hgetall") < count / 2
        assert calls("cmdstat_info") < count / 2


class TestRefused:
    def test_an_unknown_name_gets_the_nearest(self, api: RunningApi) -> None:
        problem = refused(api, {"name": "mail.sent"})
        assert problem["code"] == "unknown-task"
        assert problem["detail"] == "No task is named 'mail.sent'. Did you mean 'mail.send'?"

    def test_an_unknown_queue_gets_the_nearest(self, api: RunningApi) -> None:
        problem = refused(api, {"name": "add", "payload": {"a": 1}, "queue": "sumz"})
        assert problem["code"] == "unknown-queue"
        assert "Did you mean 'sums'?" in problem["detail"]
        assert faults(problem) == {("#/queue", "unknown-queue")}

    def test_every_fault_of_a_payload_has_its_place(self, api: RunningApi) -> None:
        body = {"name": "mail.send", "payload": {"subject": 5, "copies": ["a", 7], "cc/bcc": "x"}}
        problem = refused(api, body)
        assert problem["code"] == "invalid-payload"
        assert faults(problem) == {
            ("#/payload/to", "required"),
            ("#/payload/subject", "type"),
            ("#/payload/copies/1", "type"),
            ("#/payload/cc~1bcc", "additional-properties"),
        }

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", ""), ("name", 5), ("name", "x" * 256), ("name", "a\x1fb"),
            ("payload", []), ("payload", "x"), ("payload", None),
            ("delay_seconds", -1), ("delay_seconds", "5"), ("delay_seconds", True),
            ("delay_seconds", 11 * 366 * DAY), ("delay_seconds", 10**400),
            ("run_at", "tomorrow"), ("run_at", "2026-11-22T09:30:00"), ("run_at", "2999-01-01T00:00:00Z"),
            ("run_at", 5), ("priority", 10), ("priority", -1), ("priority", 1.0), ("priority", True),
            ("fairness_key", ""), ("fairness_key", "x" * 201), ("fairness_key", ["a"]),
            ("tags", "x"), ("tags", [""]), ("tags", [1]), ("tags", ["x"] * 51), ("tags", ["x" * 129]),
            ("expires_in_seconds", 0), ("expires_in_seconds", 0.0001),
            ("max_attempts", 0), ("max_attempts", 1.5), ("max_attempts", 10_001), ("queue", ""), ("queue", 1),
        ],
    )  # fmt: skip
    def test_a_bad_field_is_named(self, api: RunningApi, field: str, value: Any) -> None:
        problem = refused(api, {"name": "add", "payload": {"a": 1}, field: value})
        assert problem["code"] == "invalid-body"
        assert all(fault["pointer"].startswith(f"#/{field}") for fault in problem["errors"])

    def test_all_faults_are_told_at_once(self, api: RunningApi) -> None:
        problem = refused(api, {"nam": "add", "priority": 99, "colour/~": "red"})
        assert faults(problem) == {
            ("#/name", "required"),
            ("#/priority", "invalid"),
            ("#/nam", "unknown-field"),
            ("#/colour~1~0", "unknown-field"),
        }

    @pytest.mark.parametrize("body", [[], "add", 5, None, True])
    def test_a_body_must_be_an_object(self, api: RunningApi, body: Any) -> None:
        problem = refused(api, body)
        assert faults(problem) == {("#", "type")}

    def test_a_delay_and_a_time_contradict_each_other(self, api: RunningApi) -> None:
        refused(api, {"name": "anything", "delay_seconds": 1, "run_at": "2030-01-01T00:00:00Z"})

    def test_a_task_must_not_expire_before_it_is_due(self, api: RunningApi) -> None:
        for when in ({"delay_seconds": 60}, {"run_at": clock.rfc3339(clock.now_ms() + 60_000)}):
            problem = refused(api, {"name": "anything", "expires_in_seconds": 50, **when})
            assert faults(problem) == {("#/expires_in_seconds", "invalid")}
        # The contract's own expiry counts as well.
        refused(api, {"name": "mail.send", "payload": {"to": "x"}, "delay_seconds": 3600})

    @pytest.mark.parametrize("field", ["unique", "after", "callback_url"])
    def test_features_to_come_are_refused_and_never_ignored(self, api: RunningApi, field: str) -> None:
        problem = refused(api, {"name": "anything", field: "x"})
        assert problem["code"] == "not-supported-yet"
        assert faults(problem) == {(f"#/{field}", "not-supported-yet")}

    def test_so_is_an_idempotency_key(self, api: RunningApi) -> None:
        problem = refused(api, {"name": "anything"}, **KEY)
        assert problem["code"] == "not-supported-yet"

    @pytest.mark.parametrize(
        "raw",
        [
            b"", b" ", b"{", b"nul", b"{'a': 1}", b"\xff\xfe{}", b'\xef\xbb\xbf{"name": "anything"}',
            b'{"name": "anything", "payload": {"x": NaN}}',
            b'{"name": "anything", "payload": {"x": Infinity}}',
            b'{"name": "anything", "payload": {"x": -Infinity}}',
            b'{"name": "anything", "payload": {"x": 1e400}}',
            b'{"name": "anything", "payload": {"x": 1, "x": 2}}',
            b'{"name": "add", "name": "anything"}',
            b'{"name": "anything", "payload": {"x": "\\ud800"}}',
            b'{"name": "anything", "payload": {"x": ' + b"9" * 5000 + b"}}",
            b'{"name": "anything", "payload": {"x": ' + b"[" * 31 + b"]" * 31 + b"}}",
            b"[" * 100_000,
            b'{"a":' * 50_000,
        ],
        ids=lambda raw: repr(raw[:50]),
    )  # fmt: skip
    def test_what_is_not_json_as_everybody_reads_it_gets_400(self, api: RunningApi, raw: bytes) -> None:
        assert refused(api, raw, 400)["code"] == "invalid-json"

    def test_depth_is_allowed_up_to_the_limit(self, api: RunningApi) -> None:
        deep: Any = []
        for _ in range(29):
            deep = [deep]
        api.submit("anything", {"x": deep})  # the body, the payload and 30 lists are 32 levels

    def test_sizes(self, api: RunningApi) -> None:
        limit = 256 * 1024
        api.submit("anything", {"x": "y" * (limit - len('{"x":""}'))})
        problem = refused(api, {"name": "anything", "payload": {"x": "y" * limit}}, 413)
        assert problem["code"] == "payload-too-large"
        refused(api, {"name": "anything", "payload": {"x": "y" * 1024 * 1024}}, 413)

    def test_a_long_body_without_a_length_is_cut_off(self, api: RunningApi) -> None:
        def chunks() -> Iterator[bytes]:
            yield b'{"name": "anything", "payload": {"x": "'
            for _ in range(40):
                yield b"y" * 65536
            yield b'"}}'

        answer = api.http.post("/v1/tasks", content=chunks(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 413

    @pytest.mark.parametrize(
        "headers",
        [
            {}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"},
            {"Content-Type": "application/json; charset=latin-1"}, {"Content-Type": "application/jsonx"},
            {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        ],
        ids=str,
    )  # fmt: skip
    def test_other_media_types_get_415(self, api: RunningApi, headers: dict[str, str]) -> None:
        answer = api.http.post("/v1/tasks", content=b'{"name": "anything"}', headers=headers)
        assert answer.status_code == 415
        assert answer.json()["code"] == "unsupported-media-type"

    def test_a_charset_of_utf8_is_fine(self, api: RunningApi) -> None:
        headers = {"Content-Type": 'Application/JSON; charset="UTF-8"'}
        assert api.http.post("/v1/tasks", content=b'{"name": "anything"}', headers=headers).status_code == 202

    @pytest.mark.parametrize(
        ("good", "bad"),
        [
            (b'"a":{"type":"integer"}', b'"a":{"type":"wrong"}'),
            # A reference to somewhere else must not make the API fetch it.
            (b'"a":{"type":"integer"}', b'"a":{"$ref":"http://127.0.0.1:9/x.json"}'),
        ],
        ids=["no schema", "a foreign reference"],
    )
    def test_a_schema_that_cannot_be_used_is_its_workers_fault_and_told(
        self, redis_url: str, good: bytes, bad: bytes
    ) -> None:
        def publish_badly(connection: Connection) -> None:
            publish(connection)
            raw = connection.client.hget(connection.keys.catalog, "add")
            assert isinstance(raw, bytes)
            assert good in raw
            connection.client.hset(connection.keys.catalog, "add", raw.replace(good, bad))

        with running_api(redis_url, prepare=publish_badly) as api:
            problem = refused(api, {"name": "add", "payload": {"a": 1}}, 500)
            assert "JSON Schema that workers published for 'add'" in problem["detail"]


class TestLimits:
    def test_a_full_queue_refuses_and_says_when_to_come_back(self, redis_url: str) -> None:
        with running_api(redis_url, QUEUE_MAX_DEPTH="3") as api:
            for _ in range(3):
                api.submit()
            answer = api.http.post("/v1/tasks", json={"name": "add", "payload": {"a": 1}})
            assert answer.status_code == 429
            assert answer.json()["code"] == "queue-full"
            assert int(answer.headers["retry-after"]) > 0
            # Another queue has room, and a batch tells of each.
            one = {"name": "add", "payload": {"a": 1}}
            batch = api.http.post("/v1/tasks/batch", json={"tasks": [one, {**one, "queue": "mail"}]})
            assert batch.status_code == 202
            full, taken = batch.json()["items"]
            assert full["problem"]["code"] == "queue-full"
            assert full["problem"]["status"] == 429
            assert taken["state"] == "queued"

    def test_above_the_memory_mark_submits_get_507_and_reads_go_on(self, start_server: Any) -> None:
        server = start_server(config={"maxmemory": "30mb", "maxmemory-policy": "noeviction"})
        with running_api(server.url) as api:
            task = api.submit()
            for n in range(25):
                api.connection.client.set(f"ballast{n}", b"x" * 1_000_000)
            wait_until(
                lambda: api.http.post("/v1/tasks", json={"name": "anything"}).status_code == 507,
                description="a 507",
            )
            assert refused(api, {"name": "anything"}, 507)["code"] == "store-full"
            assert api.task(task["id"])["state"] == "queued"
            assert api.http.post(f"/v1/tasks/{task['id']}/cancel").status_code == 200

    def test_without_a_replica_a_replicated_submit_is_not_confirmed(self, redis_url: str) -> None:
        with running_api(redis_url, DURABILITY="replicated") as api:
            answer = api.http.post("/v1/tasks", json={"name": "anything"})
            assert answer.status_code == 503
            assert "no replica of Redis has confirmed" in answer.json()["detail"]
            batch = api.http.post("/v1/tasks/batch", json={"tasks": [{"name": "anything"}]})
            assert batch.json()["items"][0]["problem"]["status"] == 503

    def test_with_a_replica_it_is(self, start_server: Any) -> None:
        primary, replica = start_server(), start_server()
        link = Connection(replica.url)
        _, _, address = primary.url.rpartition("@")
        host, _, port = address.partition("/")[0].partition(":")
        password = primary.url.partition("://")[2].rpartition("@")[0].rpartition(":")[2]
        link.client.config_set("masterauth", password)
        link.client.replicaof(host, port)
        wait_until(lambda: link.client.info("replication")["master_link_status"] == "up", timeout=30)
        try:
            with running_api(primary.url, DURABILITY="replicated") as api:
                task = api.submit()
                there = Connection(replica.url, namespace=api.settings.namespace)
                # Confirmed means: the replica has it now, not soon.
                assert there.run(inspector.get(there.keys, task["id"])) is not None
                there.close()
                assert api.http.post(f"/v1/tasks/{task['id']}/resubmit").status_code == 202
        finally:
            link.close()
