"""A worker with the tasks of `worker_bodies`, which the tests of one module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.board import Board
from tests.support.worker_process import ServiceProcess
from tests.support.workers import working


@pytest.fixture(scope="module")
def served(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServiceProcess, Board]]:
    with working(redis_url, tmp_path_factory.mktemp("worker")) as made:
        yield made


@pytest.fixture
def worker(served: tuple[ServiceProcess, Board]) -> ServiceProcess:
    return served[0]


@pytest.fixture
def board(served: tuple[ServiceProcess, Board]) -> Iterator[Board]:
    """The worker's board; afterwards the worker is alive, and the doctor finds nothing."""
    yield served[1]
    assert served[0].alive, served[0].said
    assert served[1].faults() == []
