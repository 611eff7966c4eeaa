"""What Skaffold, Argo CD and Flux would hand to Helm, handed to Helm."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.k8s import render
from tests.cluster.gitops.test_k8s import tool
from tests.unit.test_gitops import APPLICATION, HELM_RELEASE, PROFILES, RELEASE, patch


@pytest.fixture(autouse=True)
def helm() -> str:
    return tool("helm4", "helm3", "helm")


def template(helm: str, *options: str) -> dict[render.Key, render.Manifest]:
    command = [helm, "template", "callboard", str(render.CHART), "--namespace", "callboard", "--skip-tests"]
    command += [word for version in render.API_VERSIONS for word in ("--api-versions", version)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return render.by_key(done.stdout)


def containers(manifests: dict[render.Key, render.Manifest]) -> dict[str, dict[str, Any]]:
    """The container of every Deployment, by the Deployment's name."""
    return {
        name: manifest["spec"]["template"]["spec"]["containers"][0]
        for (kind, _, name), manifest in manifests.items()
        if kind == "Deployment"
    }


def image_of(deployment: str) -> str:
    return f"callboard-{deployment.split('-')[1]}"


@pytest.mark.parametrize("profile", PROFILES)
def test_skaffold_deploys_the_images_that_it_has_built(helm: str, profile: str) -> None:
    options = []
    for path, text in RELEASE["setValueTemplates"].items():
        [(field, image)] = re.findall(r"\{\{\.IMAGE_(REPO|TAG)_(\w+)\}\}", text)
        value = f"built.example/{image.replace('_', '-')}" if field == "REPO" else "git-1234567"
        options += ["--set", f"{path}={value}"]
    for path, value in patch(profile, "/deploy/helm/releases/0/setValues").items():
        options += ["--set", f"{path}={value}"]
    if profile == "prod":
        for path in patch(profile, "/deploy/helm/releases/0/valuesFiles"):
            options += ["--values", str(render.ROOT / path)]
    found = containers(template(helm, *options))
    assert len(found) >= 3
    for name, container in found.items():
        assert container["image"] == f"built.example/{image_of(name)}:git-1234567"
        paths = [variable["value"] for variable in container["env"] if variable["name"] == "PYTHONPATH"]
        assert paths == (["/tmp/callboard"] if profile == "dev" else [])
        # What dev copies there has to be there after the container's restart, and the root is read-only.
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


def of_argo_cd() -> tuple[list[Path], dict[str, Any]]:
    helm = APPLICATION["spec"]["source"]["helm"]
    return [render.CHART / path for path in helm["valueFiles"]], helm["valuesObject"]


def of_flux() -> tuple[list[Path], dict[str, Any]]:
    spec = HELM_RELEASE["spec"]
    return [render.ROOT / path for path in spec["chart"]["spec"]["valuesFiles"]], spec["values"]


@pytest.mark.parametrize("values", [of_argo_cd, of_flux])
def test_an_example_renders_and_says_no_number_of_workers(helm: str, values: Any, tmp_path: Path) -> None:
    files, inline = values()
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(inline), encoding="utf-8")
    options = [word for path in (*files, tmp_path / "values.yaml") for word in ("--values", str(path))]
    manifests = template(helm, *options)
    found = containers(manifests)
    assert len(found) >= 3
    for name, container in found.items():
        assert container["image"] == f"registry.example.com/callboard/{image_of(name)}:0.1.0"
        if "-worker-" in name:
            assert "replicas" not in manifests["Deployment", "callboard", name]["spec"]
    assert "Secret" not in {kind for kind, _, _ in manifests}, "a render would make another one each time"
