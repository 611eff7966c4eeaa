"""Skaffold's file and the examples for Argo CD and Flux name files, stages and values that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "callboard"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SKAFFOLD = yaml.safe_load((ROOT / "skaffold.yaml").read_text(encoding="utf-8"))
PROFILES = {profile["name"]: profile for profile in SKAFFOLD["profiles"]}
[RELEASE] = SKAFFOLD["deploy"]["helm"]["releases"]
STAGES = set(
    re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
)
[APPLICATION] = yaml.safe_load_all((ROOT / "examples/gitops/argo-cd/application.yaml").read_text("utf-8"))
[SOURCE, HELM_RELEASE] = yaml.safe_load_all((ROOT / "examples/gitops/flux/callboard.yaml").read_text("utf-8"))


def patch(profile: str, path: str) -> Any:
    [found] = [patch["value"] for patch in PROFILES[profile]["patches"] if patch["path"] == path]
    return found


def is_value(path: str) -> bool:
    """Whether the chart has the value, or an empty map that takes any key where the path ends."""
    node = VALUES
    for key in path.split("."):
        if node == {}:
            return True
        if not isinstance(node, dict) or key not in node:
            return False
        node = node[key]
    return True


def leaves(values: dict[str, Any], above: str = "") -> list[str]:
    return [
        leaf
        for key, value in values.items()
        for leaf in (leaves(value, f"{above}{key}.") if isinstance(value, dict) else [above + key])
    ]


def test_skaffold_builds_the_three_stages() -> None:
    assert SKAFFOLD["apiVersion"] == "skaffold/v4beta14"
    built = {artifact["image"]: artifact["docker"]["target"] for artifact in SKAFFOLD["build"]["artifacts"]}
    assert built == {f"callboard-{part}": part for part in ("api", "worker", "scheduler")}
    assert set(built.values()) <= STAGES


def test_skaffold_hands_every_image_to_the_chart() -> None:
    assert (ROOT / RELEASE["chartPath"]).resolve() == CHART
    templates = RELEASE["setValueTemplates"]
    assert all(is_value(path) for path in templates)
    for artifact in SKAFFOLD["build"]["artifacts"]:
        name = artifact["image"].replace("-", "_")
        used = [path for path, text in templates.items() if text.endswith(f"_{name}}}}}")]
        assert [path.rpartition(".")[2] for path in used] == ["repository", "tag"]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_sets_values_that_the_chart_has(profile: str) -> None:
    assert all(is_value(path) for path in patch(profile, "/deploy/helm/releases/0/setValues"))


def test_production_takes_the_values_for_production() -> None:
    [path] = patch("prod", "/deploy/helm/releases/0/valuesFiles")
    assert (ROOT / path).resolve() == CHART / "values-production.yaml"


@pytest.mark.parametrize("index", [0, 1, 2])
def test_changed_files_go_where_python_looks_first(index: int) -> None:
    sync = patch("dev", f"/build/artifacts/{index}/sync")
    part = SKAFFOLD["build"]["artifacts"][index]["docker"]["target"]
    library = patch("dev", "/deploy/helm/releases/0/setValues")["env.PYTHONPATH"]
    for rule in sync["manual"]:
        files = [path.relative_to(ROOT).as_posix() for path in ROOT.glob(rule["src"]) if path.suffix == ".py"]
        assert files
        assert all(path.startswith(rule.get("strip", "")) for path in files)
        assert rule["dest"] == library
    packages = {rule["src"].removeprefix(rule.get("strip", "")).partition("/")[0] for rule in sync["manual"]}
    assert packages == {"callboard", "callboard_apps", f"callboard_{part}"}
    [before] = sync["hooks"]["before"]
    assert before["container"]["command"][-1].endswith(f"cp -r /opt/callboard/lib {library}")
    assert "--from=callboard /opt/callboard/lib /opt/callboard/lib" in (ROOT / "Dockerfile").read_text(
        "utf-8"
    )


def test_the_ports_that_are_forwarded_are_the_services() -> None:
    [forward] = PROFILES["dev"]["portForward"]
    assert forward["resourceName"] == f"{RELEASE['name']}-api"
    assert forward["port"] == VALUES["api"]["service"]["port"]


def test_argo_cd_reads_files_and_sets_values_of_the_chart() -> None:
    source = APPLICATION["spec"]["source"]
    assert (ROOT / source["path"]).resolve() == CHART
    assert all((CHART / path).is_file() for path in source["helm"]["valueFiles"])
    assert all(is_value(path) for path in leaves(source["helm"]["valuesObject"]))


def test_flux_reads_files_and_sets_values_of_the_chart() -> None:
    chart = HELM_RELEASE["spec"]["chart"]["spec"]
    assert (ROOT / chart["chart"]).resolve() == CHART
    assert chart["sourceRef"] == {"kind": SOURCE["kind"], "name": SOURCE["metadata"]["name"]}
    assert all((ROOT / path).is_file() for path in chart["valuesFiles"])
    assert all(is_value(path) for path in leaves(HELM_RELEASE["spec"]["values"]))
    assert f"!/{chart['chart']}" in SOURCE["spec"]["ignore"].splitlines()


def test_a_wrong_value_is_found() -> None:
    assert is_value("api.image.tag")
    assert is_value("env.ANYTHING")
    assert not is_value("api.image.tga")
    assert not is_value("api.image.tag.more")
