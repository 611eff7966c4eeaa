"""The chart rendered by the real Helm, as plain objects."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[3] / "deploy" / "helm" / "callboard"
#: The oldest Kubernetes that Chart.yaml admits, and the newest that the lab has.
OLDEST, NEWEST = "1.31.0", "1.37.1"
#: What the cluster has beside Kubernetes' own kinds.
CRDS = (
    "gateway.networking.k8s.io/v1/HTTPRoute",
    "keda.sh/v1alpha1/ScaledObject",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
)

#: Kinds without a namespace.
CLUSTER_WIDE = ("PriorityClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")

Object = dict[str, Any]


class Refused(Exception):
    """Helm refused to render; the message is its last line of error."""


class Rendered:
    """The objects of one render."""

    def __init__(self, objects: Sequence[Object]) -> None:
        self.objects = objects

    def all(self, kind: str) -> list[Object]:
        """The objects of a kind, in order."""
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind: str, name: str) -> Object:
        """The object of that kind whose name is `callboard-NAME`, or `callboard` for an empty one."""
        whole = f"callboard-{name}" if name else "callboard"
        found = [item for item in self.all(kind) if item["metadata"]["name"] == whole]
        assert len(found) == 1, f"{kind} {whole}: {[self.name(item) for item in self.objects]}"
        return found[0]

    def has(self, kind: str, name: str) -> bool:
        """Whether there is such an object."""
        return any(item["metadata"]["name"] == f"callboard-{name}" for item in self.all(kind))

    def pods(self) -> Iterator[tuple[str, Object]]:
        """The spec of every pod, with the name of what makes it."""
        for item in self.objects:
            if item["kind"] in ("Deployment", "StatefulSet"):
                yield item["metadata"]["name"], item["spec"]["template"]["spec"]
            elif item["kind"] == "Pod":
                yield item["metadata"]["name"], item["spec"]

    @staticmethod
    def name(item: Object) -> str:
        """`Kind/name`."""
        return f"{item['kind']}/{item['metadata']['name']}"


class Helm:
    """One Helm binary. The same render is asked for once."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._rendered = lru_cache(maxsize=None)(self._template)

    def render(
        self,
        values: Mapping[str, Any] | None = None,
        *files: str,
        crds: Sequence[str] = CRDS,
        kubernetes: str = NEWEST,
        release: str = "callboard",
    ) -> Rendered:
        """Render with `files` of the chart and `values` over them. Raises `Refused`."""
        text = self._rendered(json.dumps(values or {}), files, tuple(crds), kubernetes, release)
        return Rendered([item for item in yaml.safe_load_all(text) if item])

    def refusal(self, values: Mapping[str, Any], **options: Any) -> str:
        """What Helm says when it must not render."""
        try:
            self.render(values, **options)
        except Refused as refused:
            return str(refused)
        raise AssertionError(f"{values} rendered")

    def run(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Any command of Helm's."""
        return subprocess.run(
            [self._program, *arguments], input=given, capture_output=True, text=True, check=False, timeout=60
        )

    def _template(
        self, values: str, files: tuple[str, ...], crds: tuple[str, ...], kubernetes: str, release: str
    ) -> str:
        done = self.run(
            *("template", release, str(CHART), "--namespace", "work", "--kube-version", kubernetes),
            *(f"--api-versions={crd}" for crd in crds),
            *(f"--values={CHART / name}" for name in files),
            "--values=-",
            given=values,
        )
        if done.returncode:
            raise Refused(_message(done.stderr))
        return done.stdout


def _message(text: str) -> str:
    """Helm's complaint without its `Use --debug` and without the template's address."""
    told = text.replace("\n\nUse --debug flag to render out invalid YAML", "").strip()
    return re.sub(r"^Error: execution error at \([^)]*\): ", "", told)
