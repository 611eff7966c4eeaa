"""The Helm binaries; what lacks them skips with the reason."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.cluster.chart.helm import Helm


def _helm(name: str) -> Helm:
    folders = os.pathsep.join(filter(None, [os.environ.get("CLUSTER_TOOLS"), os.environ.get("PATH")]))
    if path := shutil.which(name, path=folders):
        return Helm(Path(path))
    pytest.skip(f"no {name} in $CLUSTER_TOOLS or on PATH: `make cluster-tools` builds it")


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Helm 4."""
    return _helm("helm4")


@pytest.fixture(scope="session")
def helm3() -> Helm:
    """Helm 3."""
    return _helm("helm3")
