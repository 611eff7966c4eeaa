"""What a refusal of the API looks like: a problem, with its faults and their places."""

from __future__ import annotations

import json
from typing import Any

from tests.support.api_server import RunningApi


def refused(api: RunningApi, body: Any, status: int = 422, path: str = "/v1/tasks", **headers: Any) -> Any:
    """Post `body`, which must be refused with `status`; the problem."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = api.http.post(path, content=content, headers={"Content-Type": "application/json", **headers})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"] == f"urn:callboard:problem:{problem['code']}"
    assert problem["instance"] == f"urn:request:{answer.headers['x-request-id']}"
    return problem


def faults(problem: Any) -> set[tuple[str, str]]:
    """Place and code of each."""
    return {(fault["pointer"], fault["code"]) for fault in problem["errors"]}
