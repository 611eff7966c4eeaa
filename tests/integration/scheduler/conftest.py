"""A connection of the test's own namespace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from callboard.storage.connection import Connection


@pytest.fixture
def connection(redis_url: str, namespace: str) -> Iterator[Connection]:
    made = Connection(redis_url, namespace=namespace)
    yield made
    made.close()
