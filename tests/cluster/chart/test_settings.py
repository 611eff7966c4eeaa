"""What the chart sets is what the processes know: every rendered environment loads as settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from callboard.settings import Settings, load
from tests.cluster.chart.helm import Helm, Object
from tests.cluster.chart.test_security import FILES


def settings(container: Object, folder: Path) -> Settings:
    """The container's settings, as its process reads them."""
    env = {}
    for one in container["env"]:
        value = one.get("value")
        if value is None:
            value = {"status.podIP": "10.0.0.1", "metadata.name": "pod-1"}.get(
                one["valueFrom"].get("fieldRef", {}).get("fieldPath"), "secret"
            )
        if one["name"].endswith("_FILE"):
            mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert any(value.startswith(f"{mount}/") for mount in mounts), f"{value} is not mounted"
            path = folder / one["name"]
            path.write_text("redis://valkey:6379/0" if "REDIS" in one["name"] else "0123456789abcdef")
            value = str(path)
        env[one["name"]] = value
    return load(env)


@pytest.mark.parametrize("name", FILES)
def test_every_environment_loads(helm: Helm, tmp_path: Path, name: str) -> None:
    seen = set()
    for who, pod in helm.render(None, name).pods():
        container = pod["containers"][0]
        if container["name"] in ("api", "worker", "scheduler"):
            seen.add(container["name"])
            assert settings(container, tmp_path).redis_url, who
    assert {"api", "worker"} <= seen


def test_they_arrive_as_they_were_meant(helm: Helm, tmp_path: Path) -> None:
    rendered = helm.render(None, "ci/everything-values.yaml")
    loaded = {
        who: settings(pod["containers"][0], tmp_path)
        for who, pod in rendered.pods()
        if "valkey" not in who and "test" not in who
    }
    api, worker = loaded["callboard-api"], loaded["callboard-worker-default"]
    assert api.api_host == api.ops_host == "10.0.0.1"
    assert (api.api_port, api.ops_port) == (8000, 9000)
    assert api.admin_key is not None
    assert worker.admin_key is None
    assert (worker.namespace, worker.durability, worker.log_format, worker.log_level) == (
        "board",
        "synced",
        "text",
        "debug",
    )
    assert worker.modules == ("acme.tasks", "acme.more")
    assert worker.worker_queues == ()
    assert worker.worker_drain_seconds == 10
    assert worker.cluster_pod == "pod-1"
    assert worker.cluster_protect_seconds == 60
    assert worker.retention_failed_days == 14
    assert worker.apps == ()
    assert loaded["callboard-worker-plain"].worker_queues == ("a", "b")
    assert api.cluster_selector == "callboard.dev/worker-set,app.kubernetes.io/instance=callboard"


def test_probes_and_monitors_ask_the_port_that_answers(helm: Helm, tmp_path: Path) -> None:
    rendered = helm.render()
    for _, pod in rendered.pods():
        container = pod["containers"][0]
        if container["name"] not in ("api", "worker", "scheduler"):
            continue
        port = next(port["containerPort"] for port in container["ports"] if port["name"] == "ops")
        assert settings(container, tmp_path).ops_port == port
        assert settings(container, tmp_path).ops_host == "0.0.0.0"
        for probe, path in (
            ("startupProbe", "/livez"),
            ("livenessProbe", "/livez"),
            ("readinessProbe", "/readyz"),
        ):
            assert container[probe]["httpGet"] == {"path": path, "port": "ops"}
