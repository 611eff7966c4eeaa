"""Names that YAML takes for something else, labels of the chart's own, nulls, texts that YAML cannot hold."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.chart.helm import CHART, NEWEST, Helm, Object

#: What an API server takes as text alone, and YAML reads as a number, a truth or nothing when it is bare.
_TEXTS = ("name", "namespace", "secretName", "serviceAccountName", "priorityClassName", "storageClassName")
_MAPS = ("labels", "annotations", "matchLabels")


class _Strict(yaml.SafeLoader):
    """Fails for a key that is there twice, of which a reader keeps either."""


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict[Hashable, Any]:
    pairs = [
        (loader.construct_object(key, deep=True), loader.construct_object(value, deep=True))
        for key, value in node.value
    ]
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), f"twice: {sorted(key for key in keys if keys.count(key) > 1)}"
    return dict(pairs)


_Strict.add_constructor("tag:yaml.org,2002:map", _mapping)


def strict(
    helm: Helm, values: dict[str, Any], release: str = "callboard", namespace: str = "work"
) -> list[Object]:
    """The objects of a render that has no key twice and no text that is none."""
    crds = ("monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule")
    done = helm.run(
        *("template", release, str(CHART), f"--namespace={namespace}", f"--kube-version={NEWEST}"),
        *(f"--api-versions={kind}" for kind in crds),
        "--values=-",
        given=json.dumps(values),
    )
    assert done.returncode == 0, done.stderr
    objects = [item for item in yaml.load_all(done.stdout, _Strict) if item]
    assert [path for item in objects for path in no_texts(item, item["kind"])] == []
    return objects


def no_texts(node: Any, path: str) -> Iterator[str]:
    """The paths of what should be text and is not."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from no_texts(item, f"{path}[{index}]")
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        here = f"{path}.{key}"
        if key in _MAPS and isinstance(value, dict):
            yield from (f"{here}.{name}" for name, text in value.items() if not isinstance(text, str))
        elif key in _TEXTS and not isinstance(value, str):
            yield here
        yield from no_texts(value, here)


def pod_of(objects: list[Object], name: str) -> Object:
    (found,) = (
        item["spec"]["template"]
        for item in objects
        if item["kind"] in ("Deployment", "StatefulSet") and item["metadata"]["name"] == name
    )
    template: Object = found
    return template


@pytest.mark.parametrize("name", ["on", "no", "y", "007", "1", "1e3", "0x1f", "null", "true"])
def test_a_worker_set_may_be_called_what_yaml_takes_for_something_else(helm: Helm, name: str) -> None:
    objects = strict(helm, {"workers": {name: {"queues": [name]}}})
    labels = pod_of(objects, f"callboard-worker-{name}")["metadata"]["labels"]
    assert labels["callboard.dev/worker-set"] == name


@pytest.mark.parametrize("name", ["on", "null", "true", "e10"])
def test_so_may_a_release_and_a_namespace(helm: Helm, name: str) -> None:
    objects = strict(helm, {"rbac": {"ownPodOnly": True}, "priorityClasses": {"create": True}}, name, "123")
    assert (
        pod_of(objects, f"{name}-callboard-api")["metadata"]["labels"]["app.kubernetes.io/instance"] == name
    )
    assert {item["metadata"].get("namespace", "123") for item in objects} == {"123"}


def test_so_may_secrets_and_accounts(helm: Helm) -> None:
    values = {
        "auth": {"existingSecret": "123"},
        "valkey": {"enabled": False},
        "redis": {"existingSecret": "456", "urlKey": "1", "tls": {"existingSecret": "1e9"}},
        "database": {"existingSecret": "77", "urlKey": "on"},
        "api": {"serviceAccount": {"name": "1"}, "priorityClassName": "2"},
        "workerServiceAccount": {"create": False, "name": "on"},
        "image": {"pullSecrets": ["3"]},
        "ingress": {"enabled": True, "className": "4", "hosts": [{"host": "a.example.com", "path": "/a: b"}]},
    }
    spec = pod_of(strict(helm, values), "callboard-api")["spec"]
    named = [volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume]
    assert sorted(named) == ["123", "1e9", "456", "77"]
    assert spec["imagePullSecrets"] == [{"name": "3"}]


def test_a_releases_dots_stay_out_of_names(helm: Helm) -> None:
    objects = strict(helm, {}, "shop.v2")
    assert {item["metadata"]["name"].split("-callboard")[0] for item in objects} == {"shop-v2"}


def test_a_long_release_is_cut_off_to_a_name(helm: Helm) -> None:
    objects = strict(helm, {"metrics": {"podMonitor": {"enabled": True}}}, "b" * 33 + "--callboard")
    (monitor,) = (item for item in objects if item["kind"] == "PodMonitor")
    assert monitor["metadata"]["name"] == "b" * 33
    strict(helm, {"workers": {"w" * 20: {"queues": ["a"]}}}, "b" * 53)


def test_a_release_that_starts_with_a_digit_is_refused_before_its_services_are(helm: Helm) -> None:
    assert 'names start with "2", and they must start with a letter' in helm.refusal({}, release="2nd")
    helm.render({"fullnameOverride": "second"}, release="2nd")


def test_labels_of_ones_own_take_the_place_of_what_nothing_selects_by(helm: Helm) -> None:
    values = {
        "commonLabels": {"app.kubernetes.io/part-of": "shop", "team": "a", "gone": None},
        "commonAnnotations": {"note": "a", "gone": None},
        "workerDefaults": {
            "podLabels": {"team": "b"},
            "podAnnotations": {"kubectl.kubernetes.io/default-container": "beside", "checksum/redis": "mine"},
        },
        "metrics": {
            "dashboards": {"enabled": True, "labels": {"team": "c"}},
            "podMonitor": {"enabled": True},
        },
    }
    objects = strict(helm, values)
    for item in objects:
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "shop"
        assert item["metadata"]["annotations"]["note"] == "a"
        assert "gone" not in item["metadata"]["labels"] | item["metadata"]["annotations"]
    worker = pod_of(objects, "callboard-worker-default")["metadata"]
    assert worker["labels"]["team"] == "b"
    assert worker["annotations"]["kubectl.kubernetes.io/default-container"] == "beside"
    assert pod_of(objects, "callboard-api")["metadata"]["labels"]["team"] == "a"
    boards = [item for item in objects if "dashboard" in item["metadata"]["name"]]
    assert [item["metadata"]["labels"]["team"] for item in boards] == ["c"] * len(boards) != []


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"commonLabels": {"app.kubernetes.io/name": "shop"}}, "commonLabels"),
        ({"commonLabels": {"app.kubernetes.io/managed-by": "me"}}, "commonLabels"),
        ({"api": {"podLabels": {"app.kubernetes.io/component": "shop"}}}, "api.podLabels"),
        ({"valkey": {"podLabels": {"app.kubernetes.io/instance": "shop"}}}, "valkey.podLabels"),
        ({"workers": {"one": {"podLabels": {"callboard.dev/worker-set": "two"}}}}, "workers.one.podLabels"),
        (
            {"metrics": {"dashboards": {"labels": {"app.kubernetes.io/name": "x"}}}},
            "metrics.dashboards.labels",
        ),
    ],
)
def test_labels_that_selectors_go_by_are_refused(helm: Helm, values: dict[str, Any], path: str) -> None:
    told = helm.refusal(values)
    assert f"{path}: " in told
    assert "is the chart's own, which selectors go by" in told


def test_annotations_of_ones_own_are_on_objects_without_a_namespace_too(helm: Helm) -> None:
    values = {
        "commonAnnotations": {"note": "a"},
        "rbac": {"ownPodOnly": True},
        "priorityClasses": {"create": True},
    }
    wide = [item for item in strict(helm, values) if "namespace" not in item["metadata"]]
    assert len(wide) == 5
    assert {item["metadata"]["annotations"]["note"] for item in wide} == {"a"}


@pytest.mark.parametrize("text", ["\x7f", "\u2028", "\x85", "a\n  b: c\n", "'\"{{ fail }}"])
def test_no_text_makes_the_workers_vanish(helm: Helm, helm3: Helm, text: str) -> None:
    # YAML has no DEL, and a reader that fails hands on nothing: an installation without workers.
    for either in (helm, helm3):
        objects = strict(either, {"workers": {"one": {"queues": ["a"], "env": {"TEXT": text}}}})
        (container,) = pod_of(objects, "callboard-worker-one")["spec"]["containers"]
        assert {"name": "TEXT", "value": text} in container["env"]


def test_a_number_too_large_for_a_machines_word_is_that_number(helm: Helm) -> None:
    objects = strict(helm, {"api": {"env": {"BIG": 1e21, "SMALL": 0.1}}})
    (container,) = pod_of(objects, "callboard-api")["spec"]["containers"]
    values = {one["name"]: one.get("value") for one in container["env"]}
    assert (values["BIG"], values["SMALL"]) == ("1" + "0" * 21, "0.1")


@pytest.mark.parametrize(
    "path",
    [
        *("global", "image", "settings", "auth", "redis", "api", "workerDefaults", "scheduler", "valkey"),
        *("ingress", "httpRoute", "networkPolicy", "rbac", "scaling", "priorityClasses", "metrics", "tests"),
        *(
            "api.autoscaling",
            "api.service.port",
            "valkey.persistence",
            "valkey.maxmemory",
            "metrics.podMonitor",
        ),
        *("workerDefaults.slots", "workerDefaults.autoscaling.mode", "workerDefaults.strategy"),
        *(
            "settings.namespace",
            "networkPolicy.apiServerPorts",
            "scheduler.podDisruptionBudget.maxUnavailable",
        ),
    ],
)
def test_a_null_for_what_there_must_be_is_told_by_its_path(helm: Helm, helm3: Helm, path: str) -> None:
    values: Any = None
    for key in reversed(path.split(".")):
        values = {key: values}
    *above, last = path.split(".")
    for either in (helm, helm3):
        told = either.refusal(values)
        assert last in told
        assert all(key in told for key in above)
        assert "nil pointer" not in told


def test_a_null_for_a_list_is_no_list(helm: Helm) -> None:
    values = {
        "image": {"pullSecrets": None},
        "global": {"imagePullSecrets": None},
        "networkPolicy": {"apiFrom": None, "metricsFrom": None, "workerEgress": None, "extraEgress": None},
        "applications": None,
        "extraObjects": None,
    }
    assert [item["metadata"] for item in strict(helm, values)] == [
        item["metadata"] for item in strict(helm, {})
    ]


def test_the_tests_pod_runs_where_the_apis_do(helm: Helm) -> None:
    own = {"nodeSelector": {"arch": "arm64"}, "tolerations": [{"key": "shared", "operator": "Exists"}]}
    (pod,) = (item["spec"] for item in strict(helm, {"api": own}) if item["kind"] == "Pod")
    assert (pod["nodeSelector"], pod["tolerations"]) == (own["nodeSelector"], own["tolerations"])
