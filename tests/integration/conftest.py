"""What tests of more than one module here share: a queue under its scripts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from callboard.storage.connection import Connection
from tests.support.scripted_queue import ScriptedQueue


@pytest.fixture
def queue(redis_url: str, namespace: str) -> Iterator[ScriptedQueue]:
    """A queue of its own for each test, under a clock that the test holds."""
    connection = Connection(redis_url, namespace=namespace)
    yield ScriptedQueue(connection)
    connection.close()
