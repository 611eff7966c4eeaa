"""The API sizes itself on its requests: the chart's HPA, by the rule shipped for prometheus-adapter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from callboard.client import Client
from tests.cluster.lab.release import Release
from tests.support.waiting import wait_until

_A_POD = 1


@pytest.mark.timeout(240)
def test_a_busy_api_gets_another_pod(new_release: Callable[..., Release]) -> None:
    release = new_release("busy")
    scaling = {"enabled": True, "minReplicas": 1, "maxReplicas": 2, "targetRequestsPerSecond": _A_POD}
    # CPU needs metrics-server, which is not here.
    release.install({"api": {"autoscaling": scaling | {"targetCPU": None}}})
    assert release.replicas("api") == (1, 1)

    with release.client() as client, _asking(client):
        # Not before: a counter that has counted nothing is no metric.
        wait_until(lambda: release.sees_demand("api"), 60, "the HPA reads the requests", poll=0.5)
        release.wait_for_replicas("api", 2, 90)
        (metric,) = release.autoscaler("api")["status"]["currentMetrics"]
        assert metric["pods"]["metric"]["name"] == "callboard_http_requests"

    pods = f"/apis/custom.metrics.k8s.io/v1beta1/namespaces/{release.namespace}/pods/*"
    selector = "app.kubernetes.io/component=api"
    found = release.cluster.api.get(f"{pods}/callboard_http_requests", labelSelector=selector)["items"]
    known = {pod["metadata"]["name"] for pod in release.pods("api")}
    assert {item["describedObject"]["name"] for item in found} & known


@contextmanager
def _asking(client: Client) -> Iterator[None]:
    """Some fifty requests a second, as long as the block lasts."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.02):
            client.queue("callboard")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
