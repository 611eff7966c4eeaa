"""Writes k8s/ from the chart: `make k8s`.

k8s/base is the chart rendered with k8s/values/base.yaml. An overlay is the chart rendered with its own values
on top of those, told as the difference to the base: objects that come, objects that go, and JSON patches. So
`kubectl kustomize k8s/overlays/NAME` gives what `helm template` gives. With `--check` it writes nothing,
names each file that differs, and ends with 1.

Needs Helm: `helm4`, `helm3` or `helm` in $CLUSTER_TOOLS or on the PATH.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "callboard"
K8S = ROOT / "k8s"
RELEASE = NAMESPACE = "callboard"
#: The oldest Kubernetes that the chart takes: what is rendered for it is served by all that follow.
KUBERNETES = "1.31.0"
#: Kinds that an overlay may use and a render cannot see. Where they are missing, `kubectl apply` says so.
API_VERSIONS = ("monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule")
BASE_VALUES = [K8S / "values" / "base.yaml"]
OVERLAYS = {
    "minimal": [K8S / "values" / "minimal.yaml"],
    "production": [CHART / "values-production.yaml"],
    "demo": [CHART / "values-demo.yaml"],
}
HEADER = "# Rendered from the chart by `make k8s`: change the chart, or patch this from outside.\n"

Manifest = dict[str, Any]
Key = tuple[str, str, str]


class Dumper(yaml.SafeDumper):
    """YAML as Go reads it: what YAML 1.2 takes for a number is quoted too, and texts stay legible."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else '"' if re.fullmatch(r"[-+.]?\d[\w.+-]*", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, _text)


def dumped(*documents: object) -> str:
    return yaml.dump_all(
        documents, Dumper=Dumper, sort_keys=False, width=120, explicit_start=len(documents) > 1
    )


def helm() -> str:
    """Helm's path. Ends the program where there is none."""
    folders = os.pathsep.join(filter(None, [os.environ.get("CLUSTER_TOOLS"), os.environ.get("PATH")]))
    for name in ("helm4", "helm3", "helm"):
        if path := shutil.which(name, path=folders):
            return path
    sys.exit(
        "k8s: no Helm on the PATH or in $CLUSTER_TOOLS: install Helm 3 or 4, or run `make cluster-tools`"
    )


def rendered(values: list[Path]) -> dict[Key, Manifest]:
    """The chart's objects with these values files, by kind, namespace and name; without `helm test`'s pod."""
    command = [helm(), "template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--skip-tests"]
    command += ["--kube-version", KUBERNETES]
    command += [word for version in API_VERSIONS for word in ("--api-versions", version)]
    command += [word for path in values for word in ("--values", str(path))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"k8s: the chart does not render with {', '.join(path.name for path in values)}:\n{done.stderr}"
        )
    return by_key(done.stdout)


def by_key(text: str) -> dict[Key, Manifest]:
    """The manifests of a YAML stream by kind, namespace and name."""
    found: dict[Key, Manifest] = {}
    for manifest in filter(None, yaml.safe_load_all(text)):
        metadata = manifest["metadata"]
        key = (manifest["kind"], metadata.get("namespace", ""), metadata["name"])
        if key in found:
            sys.exit(f"k8s: the chart renders {' '.join(key)} twice")
        found[key] = manifest
    return found


def changes(old: Any, new: Any, path: str = "") -> Iterator[dict[str, Any]]:
    """The JSON patch that makes `new` of `old`; a list of another length is replaced whole."""
    if old == new and type(old) is type(new):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            below = f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}"
            if key not in new:
                yield {"op": "remove", "path": below}
            elif key not in old:
                yield {"op": "add", "path": below, "value": new[key]}
            else:
                yield from changes(old[key], new[key], below)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from changes(one, other, f"{path}/{index}")
    else:
        yield {"op": "replace", "path": path, "value": new}


def file_name(key: Key) -> str:
    return f"{key[0].lower()}-{key[2]}.yaml"


def kustomization(**fields: object) -> str:
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    return HEADER + dumped({**head, **{name: value for name, value in fields.items() if value}})


def overlay(name: str, base: dict[Key, Manifest], wanted: dict[Key, Manifest]) -> Iterator[tuple[Path, str]]:
    """The files of an overlay that makes `wanted` of `base`."""
    folder = K8S / "overlays" / name
    patches: list[dict[str, Any]] = []
    for key, manifest in base.items():
        if key not in wanted:
            gone = {field: manifest[field] for field in ("apiVersion", "kind")}
            metadata = {"name": key[2], **({"namespace": key[1]} if key[1] else {})}
            patches.append({"patch": dumped({"$patch": "delete", **gone, "metadata": metadata})})
        elif patch := list(changes(manifest, wanted[key])):
            group, _, version = manifest["apiVersion"].rpartition("/")
            target = {"group": group, "version": version, "kind": key[0], "name": key[2]}
            patches.append({"path": file_name(key), "target": {k: v for k, v in target.items() if v}})
            yield folder / file_name(key), HEADER + dumped(patch)
    added = [key for key in wanted if key not in base]
    for key in added:
        yield folder / file_name(key), HEADER + dumped(wanted[key])
    resources = ["../../base", *map(file_name, added)]
    yield folder / "kustomization.yaml", kustomization(resources=resources, patches=patches)


def outputs() -> Iterator[tuple[Path, str]]:
    """Every generated file with what it has to hold."""
    base = rendered(BASE_VALUES)
    for key, manifest in base.items():
        yield K8S / "base" / file_name(key), HEADER + dumped(manifest)
    yield K8S / "base" / "kustomization.yaml", kustomization(resources=[file_name(key) for key in base])
    for name, values in OVERLAYS.items():
        yield from overlay(name, base, rendered([*BASE_VALUES, *values]))


def stale(wanted: dict[Path, str]) -> list[Path]:
    """Files that differ from what they have to hold, and those that nothing renders any more."""
    there = {path for folder in ("base", "overlays") for path in (K8S / folder).rglob("*") if path.is_file()}
    return [
        path for path, text in wanted.items() if path not in there or path.read_text("utf-8") != text
    ] + sorted(there - wanted.keys())


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: scripts/k8s/render.py [--check]", file=sys.stderr)
        return 2
    wanted = dict(outputs())
    if arguments:
        found = stale(wanted)
        for path in found:
            print(f"{path.relative_to(ROOT)} is not what the chart renders: run 'make k8s'.", file=sys.stderr)
        return 1 if found else 0
    for path in stale(wanted):
        path.unlink(missing_ok=True)
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
