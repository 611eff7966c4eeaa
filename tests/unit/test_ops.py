"""The ops port: probes and metrics, over real HTTP."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

import pytest

from callboard.errors import InvalidSetting
from callboard.metrics import Metrics
from callboard.ops import OpsServer


class Service:
    live: bool | str = True
    ready: bool | str = True

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.ops = OpsServer("127.0.0.1", 0, live=lambda: self.live, ready=self._ready, metrics=self.metrics)

    def _ready(self) -> bool | str:
        if self.ready == "raise":
            raise RuntimeError("boom")
        return self.ready

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.ops.port, timeout=5)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, answer.headers["Content-Type"], body


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    made.ops.start()
    yield made
    made.ops.stop()


def test_probes_say_ok_or_why_not(service: Service) -> None:
    assert service.get("/livez")[::2] == (200, "ok\n")
    assert service.get("/readyz?verbose")[::2] == (200, "ok\n")
    service.ready = "Redis does not answer"
    assert service.get("/readyz")[::2] == (503, "Redis does not answer\n")
    assert service.get("/livez")[0] == 200, "one does not follow from the other"
    service.live = False
    assert service.get("/livez")[0] == 503


def test_a_check_that_raises_is_a_no(service: Service) -> None:
    service.ready = "raise"
    status, _, body = service.get("/readyz")
    assert status == 503
    assert "boom" in body


def test_metrics_in_the_form_that_was_asked_for(service: Service) -> None:
    service.metrics.redis_errors.inc()
    status, kind, body = service.get("/metrics")
    assert status == 200
    assert kind.startswith("text/plain")
    assert "callboard_redis_errors_total 1.0" in body
    assert service.get("/metrics", Accept="application/openmetrics-text")[1].startswith(
        "application/openmetrics-text"
    )


def test_other_paths_and_methods(service: Service) -> None:
    assert service.get("/")[0] == 404
    assert service.get("/livez", method="HEAD")[::2] == (200, "")
    assert service.get("/livez", method="POST")[0] == 501


def test_a_client_that_says_nothing_holds_up_nobody(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.ops.port)):
        assert service.get("/livez")[0] == 200


def test_a_taken_port_is_one_clear_line(service: Service) -> None:
    other = OpsServer("127.0.0.1", service.ops.port, live=lambda: True, ready=lambda: True, metrics=Metrics())
    with pytest.raises(InvalidSetting, match=f"CALLBOARD_OPS_PORT: cannot listen on .* {service.ops.port}"):
        other.start()
    other.stop()


def test_stopping_frees_the_port_and_may_be_repeated(service: Service) -> None:
    port = service.ops.port
    service.ops.stop()
    service.ops.stop()
    assert service.ops.port == port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
