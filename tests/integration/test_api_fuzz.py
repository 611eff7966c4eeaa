"""Whatever is sent, the API answers with a problem of the table and never with a 5xx."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from callboard_api.problems import KINDS
from tests.support.api_server import RunningApi

FIELDS = (
    "name", "payload", "queue", "delay_seconds", "run_at", "priority", "fairness_key", "tags", "unique",
    "expires_in_seconds", "after", "callback_url", "max_attempts", "tasks", "terminate", "state", "x",
)  # fmt: skip
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
    | st.sampled_from(["add", "anything", "sums", "queued", "2030-01-01T00:00:00Z", "0000-00-00T00:00:00Z"])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(st.sampled_from(FIELDS), values, max_size=6)
submits = st.fixed_dictionaries(
    {"name": st.sampled_from(["add", "anything", "mail.send"])},
    optional={field: values for field in FIELDS if field not in ("name", "tasks", "terminate", "state", "x")},
)
relaxed = settings(max_examples=150, deadline=None, database=None)


def send(api: RunningApi, method: str, path: str, content: bytes, **headers: str) -> int:
    answer = api.http.request(
        method, path, content=content, headers={"Content-Type": "application/json", **headers}
    )
    assert answer.status_code < 500, (method, path, content, answer.text)
    if answer.status_code >= 400:
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert KINDS[problem["code"]].status == answer.status_code
    return answer.status_code


@relaxed
@given(body=submits | bodies | values)
def test_any_json_as_a_submit(api: RunningApi, body: Any) -> None:
    send(api, "POST", "/v1/tasks", json.dumps(body).encode())


@relaxed
@given(body=st.fixed_dictionaries({"tasks": st.lists(submits | values, max_size=5)}) | values)
def test_any_json_as_a_batch(api: RunningApi, body: Any) -> None:
    send(api, "POST", "/v1/tasks/batch", json.dumps(body).encode())


@relaxed
@given(raw=st.binary(max_size=200) | st.text('{}[]",:0eE+-. \\u\ud7ffntf', max_size=60).map(str.encode))
def test_any_bytes(api: RunningApi, raw: bytes) -> None:
    assert send(api, "POST", "/v1/tasks", raw) in (400, 422)


@relaxed
@given(
    body=bodies | values,
    route=st.sampled_from(["tasks/{}/cancel", "tasks/{}/retry", "tasks/{}/resubmit", "queues/sums/purge",
                           "queues/sums/pause", "queues/sums/resume"]),
)  # fmt: skip
def test_any_json_at_the_other_posts(api: RunningApi, body: Any, route: str) -> None:
    path = f"/v1/{route}".format(api.submit()["id"])
    send(api, "POST", path, json.dumps(body).encode())


@relaxed
@given(
    query=st.dictionaries(
        st.sampled_from(["state", "queue", "name", "tag", "owner", "created_after", "created_before", "q",
                         "include", "limit", "cursor", "after", "x"]),
        st.text(max_size=40) | st.sampled_from(["queued", "2026-01-01T00:00:00Z", "1", "W10", "c1.W10"]),
        max_size=4,
    )
)  # fmt: skip
def test_any_query(api: RunningApi, query: dict[str, str]) -> None:
    for path in ("/v1/tasks", "/v1/queues"):
        answer = api.http.get(path, params=query)
        assert answer.status_code in (200, 422), answer.text


@relaxed
@given(name=st.text(min_size=1, max_size=40))
def test_any_name_in_a_path(api: RunningApi, name: str) -> None:
    from urllib.parse import quote

    word = quote(name.encode("utf-8", "replace"), safe="")
    for path in (f"/v1/tasks/{word}", f"/v1/queues/{word}", f"/v1/catalog/{word}", f"/v1/tasks/{word}/logs"):
        assert api.http.get(path).status_code < 500


@relaxed
@given(
    headers=st.dictionaries(
        st.sampled_from(["Prefer", "If-None-Match", "Accept", "Accept-Encoding", "X-Request-Id",
                         "traceparent", "Last-Event-ID", "Authorization"]),
        st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
        max_size=4,
    ).map(lambda headers: {name: value.strip().replace("wait", "w") for name, value in headers.items()})
)  # fmt: skip
def test_any_header(api: RunningApi, headers: dict[str, str]) -> None:
    answer = api.http.get("/v1/tasks/sums_x", headers=headers)
    assert answer.status_code in (404, 406)
    answer = api.http.get("/v1/catalog", headers=headers)
    assert answer.status_code in (200, 406)
