"""What tests of more than one module here share: a queue under its scripts, a running API and its streams."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from callboard.storage.connection import Connection
from callboard_api.streams import hub, sse
from tests.support.api_server import RunningApi, running_api
from tests.support.scripted_queue import ScriptedQueue


@pytest.fixture
def queue(redis_url: str, namespace: str) -> Iterator[ScriptedQueue]:
    """A queue of its own for each test, under a clock that the test holds."""
    connection = Connection(redis_url, namespace=namespace)
    yield ScriptedQueue(connection)
    connection.close()


@pytest.fixture(scope="module")
def api(redis_url: str) -> Iterator[RunningApi]:
    """An API that the tests of one module share."""
    with running_api(redis_url) as running:
        yield running


@pytest.fixture
def fresh(redis_url: str) -> Iterator[RunningApi]:
    """An API whose queues nobody else has used."""
    with running_api(redis_url) as running:
        yield running


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is new joins the streams soon; nothing else depends on it."""
    monkeypatch.setattr(hub, "_NEW_QUEUES_SECONDS", 0.2)
    monkeypatch.setattr(hub, "_BLOCK_MS", 100)


@pytest.fixture
def quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "PING_SECONDS", 0.3)
