"""A bad value fails before anything is created, and says what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.cluster.lab.cluster import HELMS, Cluster, CommandFailed
from tests.cluster.lab.inventory import inventory
from tests.cluster.lab.release import Release

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module", params=HELMS)
def release(request: pytest.FixtureRequest, new_release: Callable[..., Release]) -> Release:
    return new_release(f"bad-{request.param}", request.param)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        pytest.param({"wrokers": {}}, "wrokers", id="unknown key"),
        pytest.param({"workers": {"default": {"slots": 0}}}, "slots", id="a value out of its range"),
        pytest.param(
            {"workers": {"default": {"drainSeconds": 60, "terminationGracePeriodSeconds": 60}}},
            "terminationGracePeriodSeconds",
            id="tasks would be killed while they drain",
        ),
        pytest.param({"workers": {"default": {"slots": 64}}}, "slotMemory", id="slots that do not fit"),
        pytest.param({"valkey": {"enabled": False}}, "redis.existingSecret", id="no store"),
        pytest.param(
            {"metrics": {"podMonitor": {"enabled": True}}}, "PodMonitor", id="a kind that this cluster lacks"
        ),
    ],
)
def test_nothing_is_created(
    release: Release, cluster: Cluster, values: Mapping[str, Any], complaint: str
) -> None:
    with pytest.raises(CommandFailed, match=complaint):
        release.install(values)
    assert inventory(cluster, release.namespace) == set()
