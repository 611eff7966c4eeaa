"""Prometheus, which finds pods through the API server, and prometheus-adapter, which serves its metrics.

The adapter runs on the rules that the project ships for it, not on some of its own.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.lab.components import Components
from tests.cluster.lab.control_plane import ControlPlane
from tests.cluster.lab.tools import ROOT, Tools
from tests.support.ports import free_port

NAMESPACE = "monitoring"
#: What HPAs ask: of queues, and of pods.
METRIC_APIS = ("external.metrics.k8s.io", "custom.metrics.k8s.io")
#: What a person gives to prometheus-adapter's chart, which makes `rules.external` its `externalRules`, and
#: `rules.custom` its `rules`.
SHIPPED_RULES = ROOT / "deploy" / "prometheus" / "prometheus-adapter-values.yaml"

Apply = Callable[[list[dict[str, Any]]], None]


class Monitoring:
    """Two processes outside of the cluster, as far as pods can tell."""

    def __init__(self, tools: Tools, control_plane: ControlPlane, components: Components) -> None:
        self._tools, self._control_plane, self._components = tools, control_plane, components
        self._folder = control_plane.folder
        self._port, self._adapter_port = free_port(), free_port()

    @property
    def url(self) -> str:
        """Where Prometheus answers queries."""
        return f"http://127.0.0.1:{self._port}"

    def boot(self, apply: Apply) -> None:
        """Start both; `apply` creates objects."""
        apply(self._objects())
        self._components.add(
            "prometheus",
            self._tools.program("prometheus"),
            flags={
                "config.file": self._write("prometheus.json", self._scraping()),
                "storage.tsdb.path": self._folder / "prometheus",
                "web.listen-address": f"127.0.0.1:{self._port}",
            },
        )
        shipped = yaml.safe_load(SHIPPED_RULES.read_text(encoding="utf-8"))["rules"]
        rules = {"externalRules": shipped["external"], "rules": shipped["custom"]}
        config = self._control_plane.kubeconfig("adapter")
        self._components.add(
            "prometheus-adapter",
            self._tools.program("prometheus-adapter"),
            flags={
                "bind-address": "127.0.0.1",
                "secure-port": self._adapter_port,
                "tls-cert-file": self._control_plane.certificates / "adapter.crt",
                "tls-private-key-file": self._control_plane.certificates / "adapter.key",
                "prometheus-url": self.url,
                "metrics-relist-interval": "2s",
                "config": self._write("adapter.json", rules),
                "lister-kubeconfig": config,
                "authentication-kubeconfig": config,
                "authorization-kubeconfig": config,
            },
        )

    def _write(self, name: str, content: object) -> Path:
        path = self._folder / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    def _scraping(self) -> dict[str, Any]:
        """What the chart's PodMonitor says to an operator: pods' port `ops`, labelled by where they are."""
        source = {"role": "pod", "kubeconfig_file": str(self._control_plane.kubeconfig("prometheus"))}
        meta = "__meta_kubernetes_"
        relabel = [
            {"source_labels": [meta + "pod_container_port_name"], "regex": "ops", "action": "keep"},
            {"source_labels": [meta + "pod_phase"], "regex": "Running", "action": "keep"},
            {"source_labels": [meta + "namespace"], "target_label": "namespace"},
            {"source_labels": [meta + "pod_name"], "target_label": "pod"},
        ]
        return {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "scrape_configs": [
                {"job_name": "callboard", "kubernetes_sd_configs": [source], "relabel_configs": relabel}
            ],
        }

    def _objects(self) -> list[dict[str, Any]]:
        authority = (self._control_plane.certificates / "ca.crt").read_bytes()
        adapter = {"kind": "User", "name": "prometheus-adapter"}
        autoscaler = {
            "kind": "ServiceAccount",
            "name": "horizontal-pod-autoscaler",
            "namespace": "kube-system",
        }
        reading = ["get", "list", "watch"]
        return [
            _object("v1", "Namespace", NAMESPACE),
            # The aggregator calls an ExternalName as it stands: no cluster address and no Endpoint is needed.
            _object(
                "v1",
                "Service",
                "prometheus-adapter",
                NAMESPACE,
                spec={"type": "ExternalName", "externalName": "localhost"},
            ),
            *(
                _object(
                    "apiregistration.k8s.io/v1",
                    "APIService",
                    f"v1beta1.{group}",
                    spec={
                        "group": group,
                        "version": "v1beta1",
                        "groupPriorityMinimum": 100,
                        "versionPriority": 100,
                        "caBundle": base64.b64encode(authority).decode(),
                        "service": {
                            "name": "prometheus-adapter",
                            "namespace": NAMESPACE,
                            "port": self._adapter_port,
                        },
                    },
                )
                for group in METRIC_APIS
            ),
            *_granted("lab-prometheus", {"kind": "User", "name": "prometheus"}, [""], ["pods"], reading),
            *_granted("lab-adapter", adapter, [""], ["namespaces", "pods", "services"], reading),
            *_granted("lab-autoscaler", autoscaler, [*METRIC_APIS], ["*"], reading),
            _bound("lab-adapter-delegator", adapter, "ClusterRole", "system:auth-delegator"),
            _bound(
                "lab-adapter-reader",
                adapter,
                "Role",
                "extension-apiserver-authentication-reader",
                "kube-system",
            ),
        ]


def _object(version: str, kind: str, name: str, namespace: str | None = None, **body: Any) -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}


def _granted(
    name: str, subject: dict[str, str], groups: list[str], resources: list[str], verbs: list[str]
) -> list[dict[str, Any]]:
    rules = [{"apiGroups": groups, "resources": resources, "verbs": verbs}]
    role = _object("rbac.authorization.k8s.io/v1", "ClusterRole", name, rules=rules)
    return [role, _bound(name, subject, "ClusterRole", name)]


def _bound(
    name: str, subject: dict[str, str], kind: str, role: str, namespace: str | None = None
) -> dict[str, Any]:
    group = "" if subject["kind"] == "ServiceAccount" else "rbac.authorization.k8s.io"
    return _object(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding" if namespace else "ClusterRoleBinding",
        name,
        namespace,
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        subjects=[{"apiGroup": group, **subject}],
    )
