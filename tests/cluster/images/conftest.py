"""What the tests of images share; none of them needs a cluster. `make images` builds the images first."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from callboard.storage.connection import Connection
from callboard.storage.embedded import EmbeddedServer
from tests.cluster.images.containers import ENVIRONMENT, IMAGES, OWN_IMAGE
from tests.support.board import Board


@pytest.fixture(scope="session", autouse=True)
def images() -> None:
    """All images are there; else the tests that want them are skipped."""
    if os.geteuid() != 0 or not shutil.which("podman"):
        pytest.skip("images are run by root, with podman: make images")
    for image in (*IMAGES.values(), OWN_IMAGE):
        words = ["podman", "image", "exists", image]
        if subprocess.run(words, env=ENVIRONMENT, check=False).returncode:
            pytest.skip(f"{image} is not built: make images")


@pytest.fixture
def board(redis_server: EmbeddedServer) -> Iterator[Board]:
    """A namespace of the test's own, through the doors, from outside of all containers."""
    connection = Connection(redis_server.url, namespace=f"t{uuid.uuid4().hex[:12]}")
    yield Board(connection)
    connection.close()


@pytest.fixture
def store(redis_server: EmbeddedServer, board: Board) -> dict[str, str]:
    """The settings that lead a container to the same namespace."""
    return {"REDIS_URL": redis_server.url, "NAMESPACE": board.connection.keys.namespace}
