"""The Helm binaries; what lacks them skips with the reason."""

from __future__ import annotations

import pytest

from tests.cluster.chart.helm import Helm
from tests.cluster.lab.tools import ToolsMissing, find_tools


def _helm(name: str) -> Helm:
    try:
        return Helm(find_tools().program(name))
    except ToolsMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Helm 4."""
    return _helm("helm4")


@pytest.fixture(scope="session")
def helm3() -> Helm:
    """Helm 3."""
    return _helm("helm3")
