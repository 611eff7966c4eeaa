"""k8s/ is what the chart renders, and kustomize makes of each overlay what Helm makes of its values."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.k8s import render

FOLDERS = {"base": [], **render.OVERLAYS}


def tool(*names: str) -> str:
    """The path of the first of these programs; skips the test where there is none."""
    folders = os.pathsep.join(filter(None, [os.environ.get("CLUSTER_TOOLS"), os.environ.get("PATH")]))
    for name in names:
        if path := shutil.which(name, path=folders):
            return path
    pytest.skip(f"no {' or '.join(names)} in $CLUSTER_TOOLS or on PATH: `make cluster-tools` builds it")


@pytest.fixture(scope="module", autouse=True)
def helm() -> str:
    return tool("helm4", "helm3", "helm")


def kustomized(folder: Path) -> dict[render.Key, render.Manifest]:
    done = subprocess.run(
        [tool("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return render.by_key(done.stdout)


def folder_of(name: str) -> Path:
    return render.K8S / ("base" if name == "base" else f"overlays/{name}")


def test_nothing_differs_from_what_the_chart_renders() -> None:
    wanted = dict(render.outputs())
    assert [path.relative_to(render.ROOT) for path in render.stale(wanted)] == [], "run 'make k8s'"


def test_two_renders_are_the_same() -> None:
    assert dict(render.outputs()) == dict(render.outputs())


def test_a_file_that_was_edited_or_is_not_rendered_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "K8S", tmp_path)
    monkeypatch.setattr(render, "ROOT", tmp_path)
    assert render.main(["--check"]) == 1
    assert render.main([]) == 0
    assert render.main(["--check"]) == 0
    edited = tmp_path / "base" / "service-callboard-api.yaml"
    edited.write_text(edited.read_text().replace("8000", "8001"))
    stranger = tmp_path / "overlays" / "demo" / "more.yaml"
    stranger.write_text("kind: Nothing\n")
    assert set(render.stale(dict(render.outputs()))) == {edited, stranger}
    assert render.main([]) == 0
    assert not stranger.exists()


@pytest.mark.parametrize("name", FOLDERS)
def test_kustomize_gives_what_helm_gives(name: str) -> None:
    assert kustomized(folder_of(name)) == render.rendered([*render.BASE_VALUES, *FOLDERS[name]])


@pytest.mark.parametrize("name", FOLDERS)
def test_no_secret_is_rendered_and_the_page_tells_how_to_make_those_that_are_used(name: str) -> None:
    manifests = kustomized(folder_of(name))
    assert "Secret" not in {kind for kind, _, _ in manifests}
    used = set(re.findall(r"'secretName': '([\w-]+)'", str(list(manifests.values()))))
    page = (render.K8S / "README.md").read_text(encoding="utf-8")
    head = (render.CHART / "values-production.yaml").read_text(encoding="utf-8")
    made = set(re.findall(r"create secret generic ([\w-]+)", head if name == "production" else page))
    assert used == made


@pytest.mark.parametrize("name", FOLDERS)
def test_nothing_asks_for_helm(name: str) -> None:
    """Hooks mean nothing to kustomize: the test's pod would run with everything else."""
    assert "helm.sh/hook" not in str(kustomized(folder_of(name)))
