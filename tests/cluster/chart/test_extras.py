"""Labels, secrets that stay, checksums, monitors, and what else is passed through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.cluster.chart.helm import CHART, CLUSTER_WIDE, NEWEST, Helm, Object

REPOSITORY = CHART.parents[2]


def templates(rendered_objects: Any) -> dict[str, Object]:
    return {
        item["metadata"]["name"]: item["spec"]["template"]
        for item in rendered_objects
        if item["kind"] in ("Deployment", "StatefulSet")
    }


def test_common_labels_and_annotations_are_everywhere_but_in_selectors(helm: Helm) -> None:
    rendered = helm.render(None, "ci/everything-values.yaml")
    for item in rendered.objects:
        if item["metadata"]["name"] in ("callboard-extra", "callboard-text"):
            continue
        assert item["metadata"]["labels"]["team"] == "platform"
        if item["kind"] not in CLUSTER_WIDE:
            assert item["metadata"]["annotations"]["example.com/owner"] == "platform"
        assert "team" not in str(item.get("spec", {}).get("selector"))
    for template in templates(rendered.objects).values():
        assert template["metadata"]["labels"]["team"] == "platform"


def test_every_namespaced_object_names_its_namespace(helm: Helm) -> None:
    for item in helm.render(None, "ci/keda-values.yaml").objects:
        assert item["metadata"]["namespace"] == "work"


def test_extra_objects_are_templates_too(helm: Helm) -> None:
    rendered = helm.render(None, "ci/everything-values.yaml")
    assert rendered.has("ConfigMap", "extra")
    assert rendered.has("ConfigMap", "text")


def test_registries_and_pull_secrets(helm: Helm) -> None:
    images = {who: pod["containers"][0]["image"] for who, pod in helm.render().pods()}
    assert images["callboard-api"] == "callboard-api:0.1.0"
    assert images["callboard-valkey"] == "docker.io/valkey/valkey:9.0"
    own = {"image": {"registry": "r.example.com/team", "tag": "7"}, "scheduler": {"image": {"tag": "8"}}}
    images = {who: pod["containers"][0]["image"] for who, pod in helm.render(own).pods()}
    assert images["callboard-worker-default"] == "r.example.com/team/callboard-worker:7"
    assert images["callboard-scheduler"] == "r.example.com/team/callboard-scheduler:8"
    assert images["callboard-valkey"] == "docker.io/valkey/valkey:9.0"
    mirrored = helm.render(
        {
            "global": {"imageRegistry": "mirror", "imagePullSecrets": ["a"]},
            "image": {"pullSecrets": ["a", "b"]},
        }
    )
    for _, pod in mirrored.pods():
        assert pod["containers"][0]["image"].startswith("mirror/")
        assert pod["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]


def test_a_change_of_what_is_read_at_the_start_rolls_the_pods(helm: Helm) -> None:
    def annotations(values: dict[str, Any], who: str) -> dict[str, str]:
        found: dict[str, str] = templates(helm.render(values).objects)[f"callboard-{who}"]["metadata"][
            "annotations"
        ]
        return found

    config = "checksum/config"
    assert (
        annotations({}, "valkey")[config] != annotations({"valkey": {"maxmemory": "200Mi"}}, "valkey")[config]
    )
    one, two = ({"auth": {"adminKey": key * 16}} for key in "ab")
    assert annotations(one, "api")["checksum/auth"] != annotations(two, "api")["checksum/auth"]
    same = annotations(one, "api")
    assert (
        same["checksum/redis"]
        == templates(helm.render(one).objects)["callboard-worker-default"]["metadata"]["annotations"][
            "checksum/redis"
        ]
    )
    assert "checksum/auth" not in annotations({}, "worker-default"), "workers do not have the key"


def test_a_key_of_ones_own_is_kept_as_it_is(helm: Helm) -> None:
    assert helm.render({"auth": {"adminKey": "0123456789abcdef"}}).one("Secret", "auth")["data"][
        "admin-key"
    ] == ("MDEyMzQ1Njc4OWFiY2RlZg==")


def test_valkeys_options(helm: Helm) -> None:
    rendered = helm.render(None, "ci/everything-values.yaml")
    valkey = rendered.one("StatefulSet", "valkey")["spec"]
    assert valkey["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"
    claim = valkey["volumeClaimTemplates"][0]["spec"]
    assert (claim["storageClassName"], claim["resources"]["requests"]["storage"]) == ("fast", "20Gi")
    container = valkey["template"]["spec"]["containers"][0]
    assert container["args"] == ["--bind", "$(POD_IP)"]
    without = helm.render(None, "ci/minimal-values.yaml").one("StatefulSet", "valkey")["spec"]
    assert "volumeClaimTemplates" not in without
    assert {"name": "data", "emptyDir": {}} in without["template"]["spec"]["volumes"]
    openshift = helm.render({"valkey": {"runAsUser": None}}).one("StatefulSet", "valkey")["spec"]
    assert "runAsUser" not in openshift["template"]["spec"]["securityContext"]


def test_the_monitor_scrapes_every_component(helm: Helm) -> None:
    rendered = helm.render(None, "ci/keda-values.yaml")
    monitor = rendered.one("PodMonitor", "")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    selector = monitor["spec"]["selector"]
    scraped = set()
    for name, template in templates(rendered.objects).items():
        labels = template["metadata"]["labels"]
        if selector["matchLabels"].items() <= labels.items() and all(
            labels.get(one["key"]) in one["values"] for one in selector["matchExpressions"]
        ):
            scraped.add(name)
            ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
            assert monitor["spec"]["podMetricsEndpoints"][0]["port"] in ports
    assert scraped == {"callboard-api", "callboard-scheduler", "callboard-worker-default"}


def test_the_rules_are_the_tested_ones_with_their_runbooks(helm: Helm) -> None:
    rule = helm.render(None, "ci/keda-values.yaml").one("PrometheusRule", "")
    shipped = [
        group
        for path in sorted((REPOSITORY / "deploy" / "prometheus" / "rules").glob("*.yaml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    ]
    for group in shipped:
        for one in group["rules"]:
            if "runbook_url" in one.get("annotations", {}):
                one["annotations"]["runbook_url"] = (
                    f"https://docs.example.com/callboard/{one['annotations']['runbook_url']}"
                )
    assert rule["spec"]["groups"] == shipped
    assert rule["metadata"]["labels"]["release"] == "prometheus"


def test_the_dashboards_are_the_shipped_ones(helm: Helm) -> None:
    maps = [
        item
        for item in helm.render(None, "ci/keda-values.yaml").all("ConfigMap")
        if "dashboard" in item["metadata"]["name"]
    ]
    shipped = sorted((REPOSITORY / "deploy" / "grafana").glob("*.json"))
    assert len(maps) == len(shipped) > 0
    for item, path in zip(maps, shipped, strict=True):
        (text,) = item["data"].values()
        assert yaml.safe_load(text) == yaml.safe_load(path.read_text(encoding="utf-8"))
        assert item["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert item["metadata"]["annotations"] == {"grafana_folder": "Callboard"}


def test_nothing_of_monitoring_is_there_unless_asked_for(helm: Helm) -> None:
    rendered = helm.render(crds=())
    assert not rendered.all("PodMonitor") + rendered.all("PrometheusRule")
    assert not [item for item in rendered.all("ConfigMap") if "dashboard" in item["metadata"]["name"]]


def test_it_can_be_part_of_another_chart(helm: Helm, tmp_path: Path) -> None:
    parent = {"apiVersion": "v2", "name": "shop", "version": "1.0.0"}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(parent), encoding="utf-8")
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "callboard").symlink_to(CHART)
    values = {
        "global": {"imageRegistry": "mirror", "theirs": 1},
        "callboard": {"workers": {"default": None, "mail": {"queues": ["mail"]}}},
    }
    done = helm.run(
        "template",
        "shop",
        str(tmp_path),
        "--kube-version",
        NEWEST,
        "--values=-",
        given=yaml.safe_dump(values),
    )
    assert done.returncode == 0, done.stderr
    objects = [item for item in yaml.safe_load_all(done.stdout) if item]
    deployments = {item["metadata"]["name"]: item for item in objects if item["kind"] == "Deployment"}
    assert {*deployments} == {"shop-callboard-api", "shop-callboard-scheduler", "shop-callboard-worker-mail"}
    (container,) = deployments["shop-callboard-api"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "mirror/callboard-api:0.1.0"


def test_a_null_takes_a_variable_away_from_one_component(helm: Helm) -> None:
    values = {"env": {"PROXY": "http://proxy"}, "api": {"env": {"PROXY": None, "CALLBOARD_LOG_FORMAT": None}}}
    names = {
        who: {env["name"] for env in pod["containers"][0].get("env", [])}
        for who, pod in helm.render(values).pods()
    }
    assert not {"PROXY", "CALLBOARD_LOG_FORMAT"} & names["callboard-api"]
    assert {"PROXY", "CALLBOARD_LOG_FORMAT"} <= names["callboard-worker-default"]


def test_a_null_takes_a_variable_away_from_one_worker_set(helm: Helm) -> None:
    values = {
        "env": {"PROXY": "http://proxy", "STAYS": "1"},
        "workerDefaults": {"env": {"CACHE": "/tmp/cache"}},
        "workers": {"one": {"env": {"PROXY": None, "CACHE": None, "CALLBOARD_LOG_FORMAT": None}}},
    }
    names = {
        who: {env["name"] for env in pod["containers"][0].get("env", [])}
        for who, pod in helm.render(values).pods()
    }
    assert not {"PROXY", "CACHE", "CALLBOARD_LOG_FORMAT"} & names["callboard-worker-one"]
    assert "STAYS" in names["callboard-worker-one"]
    assert {"PROXY", "CACHE", "STAYS"} <= names["callboard-worker-default"]


def test_nulls_and_emptiness_break_nothing(helm: Helm) -> None:
    values = {
        "workers": {"default": None},
        "commonLabels": None,
        "env": None,
        "api": {"podLabels": None, "resources": None, "podAnnotations": None, "probes": None},
        "valkey": {"resources": None},
        "scheduler": {"affinity": None, "strategy": {"rollingUpdate": None}},
    }
    rendered = helm.render(values)
    assert [item["metadata"]["name"] for item in rendered.all("Deployment")] == [
        "callboard-api",
        "callboard-scheduler",
    ]
    assert "startupProbe" in rendered.one("Deployment", "api")["spec"]["template"]["spec"]["containers"][0]
