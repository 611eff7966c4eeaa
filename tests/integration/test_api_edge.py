"""What every request meets: keys, hosts, origins, ids, media types, compression, problems, metrics."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from callboard import settings as settings_module
from callboard.errors import InvalidSetting
from callboard.metrics import HTTP_REQUESTS
from callboard_api.app import create_app
from callboard_api.problems import KINDS
from callboard_api.table import TABLE
from tests.support.api_server import RunningApi, raw, running_api
from tests.support.waiting import wait_until

KEY = "cb_a-key-of-the-administrator"


@pytest.fixture(scope="module")
def keyed(redis_url: str) -> Iterator[RunningApi]:
    with running_api(redis_url, ADMIN_KEY=KEY) as running:
        yield running


class TestKey:
    def test_without_it_401_says_how(self, keyed: RunningApi) -> None:
        assert keyed.http.get("/v1/tasks").status_code == 401
        for given in ("Bearer wrong", f"Basic {KEY}", KEY, "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}"):
            answer = keyed.http.get("/v1/tasks", headers={"Authorization": given})
            assert answer.status_code == 401
            assert answer.json()["code"] == "unauthorized"
            assert answer.headers["www-authenticate"] == "Bearer"

    def test_every_route_but_the_open_ones_needs_it(self, keyed: RunningApi) -> None:
        for endpoint in TABLE:
            path = endpoint.path.replace("{id}", "a_b").replace("{queue}", "q").replace("{name}", "n")
            answer = keyed.http.request(endpoint.method, path)
            assert (answer.status_code == 401) == (endpoint.scope is not None), endpoint.path
        assert {e.path for e in TABLE if e.scope is None} == {"/livez", "/readyz", "/openapi.json", "/docs"}

    def test_with_it_all_is_possible(self, keyed: RunningApi) -> None:
        headers = {"Authorization": f"bearer {KEY}"}
        body = {"name": "add", "payload": {"a": 1}}
        answer = keyed.http.post("/v1/tasks", json=body, headers=headers)
        assert answer.status_code == 202
        assert answer.json()["owner"] == "default"
        assert keyed.http.get("/v1/tasks", headers=headers).status_code == 200

    def test_host_and_origin_do_not_matter_then(self, keyed: RunningApi) -> None:
        headers = {
            "Authorization": f"Bearer {KEY}",
            "Host": "api.example.org",
            "Origin": "https://example.org",
        }
        assert keyed.http.get("/v1/queues", headers=headers).status_code == 200

    def test_two_keys_are_none(self, keyed: RunningApi) -> None:
        line = f"Authorization: Bearer {KEY}\n"
        answer = raw(keyed, f"GET /v1/queues HTTP/1.1\nHost: x\n{line}{line}Connection: close\n\n")
        assert answer.startswith("HTTP/1.1 401")

    @pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.5", "::", "api.example.org"])
    def test_an_open_address_needs_a_key(self, redis_url: str, host: str) -> None:
        env = {"CALLBOARD_REDIS_URL": redis_url, "CALLBOARD_API_HOST": host}
        with pytest.raises(InvalidSetting, match="CALLBOARD_ADMIN_KEY"):
            create_app(settings_module.load(env))
        create_app(settings_module.load({**env, "CALLBOARD_ADMIN_KEY": KEY}))

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.9", "::1"])
    def test_this_machines_own_needs_none(self, redis_url: str, host: str) -> None:
        create_app(settings_module.load({"CALLBOARD_REDIS_URL": redis_url, "CALLBOARD_API_HOST": host}))


class TestWithoutAKey:
    @pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
    def test_this_machines_names_are_taken(self, api: RunningApi, name: str) -> None:
        assert api.http.get("/v1/queues", headers={"Host": f"{name}:{api.port}"}).status_code == 200

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example", "evil.example:{port}", "localhost", "localhost:1",
            "127.0.0.1.evil.example:{port}",
            "localhost.:{port}", "127.0.0.2:{port}", "[::1]", "::1:{port}", "localhost:{port}:{port}",
        ],
    )  # fmt: skip
    def test_others_are_not(self, api: RunningApi, host: str) -> None:
        answer = api.http.get("/v1/queues", headers={"Host": host.replace("{port}", str(api.port))})
        assert answer.status_code == 403
        assert answer.json()["code"] == "forbidden-host"

    def test_nor_is_a_request_without_a_name_or_with_two(self, api: RunningApi) -> None:
        assert raw(api, "GET /v1/queues HTTP/1.0\n\n").startswith("HTTP/1.1 403")
        twice = "GET /v1/queues HTTP/1.1\nHost: {host}\nHost: evil.example\nConnection: close\n\n"
        assert raw(api, twice).startswith(("HTTP/1.1 403", "HTTP/1.1 400"))

    @pytest.mark.parametrize(
        "origin",
        [
            "http://evil.example", "null", "https://localhost:{port}", "http://localhost:1",
            "http://localhost", "http://localhost:{port}.evil.example", "",
        ],
    )  # fmt: skip
    def test_pages_of_other_sites_get_nothing(self, api: RunningApi, origin: str) -> None:
        headers = {"Origin": origin.replace("{port}", str(api.port))}
        for answer in (
            api.http.get("/v1/queues", headers=headers),
            api.http.post("/v1/tasks", json={"name": "anything"}, headers=headers),
        ):
            assert answer.status_code == 403
            assert answer.json()["code"] == "forbidden-origin"

    def test_our_own_pages_may(self, api: RunningApi) -> None:
        headers = {"Origin": f"http://localhost:{api.port}"}
        assert api.http.get("/v1/queues", headers=headers).status_code == 200

    def test_probes_answer_by_any_name(self, api: RunningApi) -> None:
        for path in ("/livez", "/readyz"):
            assert api.http.get(path, headers={"Host": "10.1.2.3"}).status_code == 200


class TestProblems:
    def test_an_unknown_route_is_a_problem_too(self, api: RunningApi) -> None:
        for path in ("/", "/v1", "/v1/task", "/v1/tasks/", "/v2/tasks", "/v1/tasks/a/b/c", "/metrics"):
            answer = api.http.get(path)
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "not-found"

    def test_a_wrong_method_hears_the_right_ones(self, api: RunningApi) -> None:
        answer = api.http.put("/v1/tasks", json={})
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
        assert answer.json()["code"] == "method-not-allowed"
        assert api.http.get("/v1/tasks/batch").headers["allow"] == "OPTIONS, POST"
        assert api.http.request("PROPFIND", "/v1/queues").status_code == 405

    def test_options_tells_as_well(self, api: RunningApi) -> None:
        answer = api.http.options("/v1/tasks/x")
        assert (answer.status_code, answer.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS")

    @pytest.mark.parametrize(
        ("accept", "status"),
        [
            ("application/json", 200), ("*/*", 200), ("application/*", 200), ("text/html,*/*;q=0.8", 200),
            ("application/json;q=0.5, text/html", 200), ("text/html", 406), ("application/json;q=0", 406),
            ("application/json;q=0, */*", 406), ("image/*, text/plain", 406), ("application/jsonp", 406),
        ],
    )  # fmt: skip
    def test_accept(self, api: RunningApi, accept: str, status: int) -> None:
        answer = api.http.get("/v1/queues", headers={"Accept": accept})
        assert answer.status_code == status
        if status == 406:
            assert answer.json()["code"] == "not-acceptable"

    def test_every_answer_has_an_id_and_takes_a_sane_one(self, api: RunningApi) -> None:
        for path in ("/v1/queues", "/nowhere", "/livez", "/docs"):
            given = api.http.get(path, headers={"X-Request-Id": "abc-123.x"})
            assert given.headers["x-request-id"] == "abc-123.x"
            made = api.http.get(path).headers["x-request-id"]
            assert len(made) == 24
            assert given.headers["x-content-type-options"] == "nosniff"
            assert made != api.http.get(path).headers["x-request-id"]
        for insane in ("a b", "x" * 129, "-x", "<script>", ""):
            assert api.http.get("/livez", headers={"X-Request-Id": insane}).headers["x-request-id"] != insane

    def test_a_fault_of_ours_tells_nothing_of_its_inside(
        self, redis_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with running_api(redis_url) as api:
            api.platform.catalog.current = None  # a bug
            answer = api.http.get("/v1/catalog", headers={"X-Request-Id": "find-me"})
            assert answer.status_code == 500
            assert answer.json()["code"] == "internal"
            assert answer.json()["instance"] == "urn:request:find-me"
            assert "NoneType" not in answer.text
            assert "find-me" in caplog.text
            assert "NoneType" in caplog.text

    def test_codes_and_statuses_are_those_of_the_page(self) -> None:
        assert {kind.status for kind in KINDS.values()} <= {
            400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 429, 500, 503, 507,
        }  # fmt: skip


class TestHttp:
    def test_long_answers_are_compressed_for_those_who_take_it(self, api: RunningApi) -> None:
        packed = api.http.get("/v1/catalog", headers={"Accept-Encoding": "br;q=1, gzip;q=0.8"})
        assert packed.headers["content-encoding"] == "gzip"
        assert "accept-encoding" in packed.headers["vary"].lower()
        for refusal in ("identity", "gzip;q=0", "br", ""):
            plain = api.http.get("/v1/catalog", headers={"Accept-Encoding": refusal})
            assert "content-encoding" not in plain.headers
            assert plain.json() == packed.json()
        with httpx.stream("GET", f"{api.url}/v1/catalog", headers={"Accept-Encoding": "gzip"}) as answer:
            body = b"".join(answer.iter_raw())
            assert len(body) == int(answer.headers["content-length"])
            assert json.loads(gzip.decompress(body)) == packed.json()

    def test_short_answers_are_not(self, api: RunningApi) -> None:
        assert "content-encoding" not in api.http.get("/livez", headers={"Accept-Encoding": "gzip"}).headers

    def test_head_is_get_without_a_body(self, api: RunningApi) -> None:
        for path in ("/v1/catalog", "/livez", "/docs", "/nowhere"):
            head, get = api.http.head(path), api.http.get(path)
            assert (head.status_code, head.content) == (get.status_code, b"")
            assert head.headers["content-type"] == get.headers["content-type"]

    def test_requests_are_counted_by_route_and_never_by_path(self, api: RunningApi) -> None:
        def count(route: str, method: str, status: str) -> float:
            return HTTP_REQUESTS.labels(route, method, status)._value.get()

        before = count("/v1/tasks/{id}", "GET", "404"), count("unmatched", "GET", "404")
        for n in range(3):
            api.http.get(f"/v1/tasks/sums_{n}")
            api.http.get(f"/nowhere/{n}")
        after = count("/v1/tasks/{id}", "GET", "404"), count("unmatched", "GET", "404")
        assert (after[0] - before[0], after[1] - before[1]) == (3, 3)

    def test_queue_figures_are_exported(self, api: RunningApi) -> None:
        api.submit()
        from callboard.metrics import metrics

        wait_until(
            lambda: b'callboard_tasks{queue="sums",state="queued"}' in metrics.exposition()[0],
            timeout=15,
            description="figures of the queue",
        )


class TestDescription:
    def test_the_document_is_openapi_and_complete(self, api: RunningApi) -> None:
        document = api.http.get("/openapi.json").json()
        assert document["openapi"] == "3.1.0"
        told = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
        assert told == {(endpoint.method, endpoint.path) for endpoint in TABLE}
        names = [op["operationId"] for item in document["paths"].values() for op in item.values()]
        assert len(names) == len(set(names))
        refs = set(_refs(document))
        assert refs
        assert refs <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}

    def test_its_schemas_are_schemas(self, api: RunningApi) -> None:
        from jsonschema import Draft202012Validator

        for schema in api.http.get("/openapi.json").json()["components"]["schemas"].values():
            Draft202012Validator.check_schema(schema)

    def test_answers_fit_it(self, redis_url: str) -> None:
        from jsonschema import Draft202012Validator, FormatChecker

        with running_api(redis_url) as api:
            document = api.http.get("/openapi.json").json()
            waiting = api.submit(delay_seconds=60)["id"]
            failed = api.submit(priority=0)["id"]
            api.hand.claim()
            api.hand.note(failed, progress={"current": 1, "total": 3}, lines=["x"])
            api.hand.fail(failed)
            done = api.submit(priority=0)["id"]
            api.hand.claim()
            api.hand.complete(done, [1])
            calls: list[tuple[str, str, str, Any]] = [
                ("POST", "/v1/tasks", "/v1/tasks", {"name": "add", "payload": {"a": 1}}),
                ("POST", "/v1/tasks", "/v1/tasks", {"name": "nobody"}),
                ("POST", "/v1/tasks/batch", "/v1/tasks/batch", {"tasks": [{"name": "anything"}]}),
                ("GET", "/v1/tasks", "/v1/tasks?name=add&include=payload,attempts,result", None),
                ("GET", "/v1/tasks", "/v1/tasks", None),
                *(("GET", "/v1/tasks/{id}", f"/v1/tasks/{task}", None) for task in (waiting, failed, done)),
                ("GET", "/v1/tasks/{id}/logs", f"/v1/tasks/{failed}/logs", None),
                ("POST", "/v1/tasks/{id}/cancel", f"/v1/tasks/{waiting}/cancel", {}),
                ("POST", "/v1/tasks/{id}/cancel", f"/v1/tasks/{done}/cancel", {}),
                ("POST", "/v1/tasks/{id}/retry", f"/v1/tasks/{failed}/retry", {}),
                ("POST", "/v1/tasks/{id}/resubmit", f"/v1/tasks/{done}/resubmit", {}),
                ("DELETE", "/v1/tasks/{id}", f"/v1/tasks/{done}", None),
                ("GET", "/v1/queues", "/v1/queues", None),
                ("GET", "/v1/queues/{queue}", "/v1/queues/sums", None),
                ("POST", "/v1/queues/{queue}/pause", "/v1/queues/sums/pause", {}),
                ("POST", "/v1/queues/{queue}/resume", "/v1/queues/sums/resume", None),
                ("POST", "/v1/queues/{queue}/purge", "/v1/queues/sums/purge", {"state": "queued"}),
                ("GET", "/v1/workers", "/v1/workers", None),
                ("GET", "/v1/catalog", "/v1/catalog", None),
                ("GET", "/v1/catalog/{name}", "/v1/catalog/add", None),
                ("GET", "/v1/catalog/{name}", "/v1/catalog/nobody", None),
                ("GET", "/livez", "/livez", None),
                ("GET", "/readyz", "/readyz", None),
            ]
            for method, pattern, path, body in calls:
                answer = api.http.request(method, path, json=body)
                told = document["paths"][pattern][method.lower()]["responses"]
                assert str(answer.status_code) in told, (path, answer.text)
                content = told[str(answer.status_code)].get("content")
                if content is None:
                    assert answer.content == b""
                    continue
                schema = content[answer.headers["content-type"]]["schema"]
                whole = {**schema, "components": document["components"]}
                Draft202012Validator(whole, format_checker=FormatChecker()).validate(answer.json())

    def test_the_page_loads_nothing_and_names_every_route(self, api: RunningApi) -> None:
        answer = api.http.get("/docs", headers={"Accept": "text/html"})
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        page = answer.text
        assert "<script" not in page
        assert "http://" not in page
        assert "https://" not in page
        for endpoint in TABLE:
            assert endpoint.path in page


def _refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from _refs(item)
    elif isinstance(value, list):
        for item in value:
            yield from _refs(item)
