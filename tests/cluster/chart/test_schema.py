"""values.schema.json: strict, whole, and written from values.yaml, as the README's table is."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest
import yaml

from scripts.chart import pages
from tests.cluster.chart.helm import CHART, Helm

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


def test_the_schema_and_the_table_are_of_these_values() -> None:
    for path, text in pages.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run scripts/chart/pages.py"


def test_the_schema_is_one_and_the_defaults_obey_it() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(DEFAULTS)


def closed(path: str, schema: dict[str, Any]) -> list[str]:
    """Objects with a list of properties that take others too."""
    found = []
    if "properties" in schema and schema.get("additionalProperties") is not False:
        found.append(path)
    for key, inner in schema.get("properties", {}).items():
        found += closed(f"{path}.{key}".lstrip("."), inner)
    return found


def test_every_object_is_closed_but_global() -> None:
    assert closed("", SCHEMA) == ["global"]
    assert closed("", SCHEMA["$defs"]["workerSet"]) == []


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"apii": {}}, "apii"),
        ({"api": {"replica": 1}}, "replica"),
        ({"workers": {"one": {"slot": 1}}}, "slot"),
        ({"workerDefaults": {"autoscaling": {"mod": "hpa"}}}, "mod"),
        ({"workers": {"One": {}}}, "One"),
        ({"workers": {"a" * 21: {}}}, "a" * 21),
        ({"workers": {"one": {"slots": "many"}}}, "slots"),
        ({"workers": {"one": {"slots": 0}}}, "slots"),
        ({"workers": {"one": {"isolation": "fibre"}}}, "isolation"),
        ({"workers": {"one": {"queues": []}}}, "queues"),
        ({"workers": {"one": {"queues": "all"}}}, "queues"),
        ({"workers": {"one": {"slotMemory": "256MB"}}}, "slotMemory"),
        ({"workers": {"one": {"autoscaling": {"mode": "vpa"}}}}, "mode"),
        ({"workers": {"one": {"probes": {"liveness": {"httpget": {}}}}}}, "httpget"),
        ({"workers": {"one": {"podDisruptionBudget": {"maxUnavailable": 0}}}}, "maxUnavailable"),
        ({"workers": {"one": {"podDisruptionBudget": {"maxUnavailable": "0%"}}}}, "maxUnavailable"),
        ({"api": {"podDisruptionBudget": {"minAvailable": 1}}}, "minAvailable"),
        ({"api": {"image": {"digest": "latest"}}}, "digest"),
        ({"auth": {"adminKey": "short"}}, "adminKey"),
        ({"settings": {"durability": "eventual"}}, "durability"),
        ({"ingress": {"hosts": [{"name": "a"}]}}, "hosts"),
        ({"env": {"A": {"secretKeyRef": {}}}}, "env"),
        ({"env": {"A B": "c"}}, "A B"),
        ({"commonLabels": {"a": 1}}, "commonLabels"),
        ({"redis": {"ports": [0]}}, "ports"),
        ({"commonLabels": {"a": "b c"}}, "commonLabels"),
        ({"workers": {"one": {"strategy": {"type": "Rolling"}}}}, "strategy"),
        ({"scheduler": {"strategy": {"rollingupdate": {}}}}, "rollingupdate"),
        ({"image": {"registry": "https://registry.example.com/team"}}, "registry"),
        ({"image": {"tag": "1.0 "}}, "tag"),
        ({"api": {"image": {"repository": "callboard-api:1.0@"}}}, "repository"),
        ({"auth": {"existingSecret": "My Secret"}}, "existingSecret"),
        ({"redis": {"urlKey": "a/b"}}, "urlKey"),
        ({"api": {"resources": {"limits": {"memroy": "1Gi"}}}}, "memroy"),
        ({"scheduler": {"resources": {"limits": {"cpu": "half"}}}}, "cpu"),
        ({"workers": {"one": {"resources": {"limits": {"memory": "2GB"}}}}}, "memory"),
        ({"workers": {"one": {"slotMemory": -1}}}, "slotMemory"),
        ({"priorityClasses": {"api": 2000000000}}, "priorityClasses"),
        (
            {"workers": {"one": {"autoscaling": {"keda": {"serverAddress": "prometheus:9090"}}}}},
            "serverAddress",
        ),
        ({"fullnameOverride": "Board"}, "fullnameOverride"),
        ({"fullnameOverride": "1st"}, "fullnameOverride"),
        ({"listen": {"address": "pod_ip"}}, "address"),
        ({"api": {"autoscaling": {"targetRequestsPerSecond": "many"}}}, "targetRequestsPerSecond"),
        ({"metrics": {"podMonitor": {"interval": "15"}}}, "interval"),
    ],
)
def test_helm_names_a_value_that_is_wrong(helm: Helm, values: dict[str, Any], told: str) -> None:
    message = helm.refusal(values)
    assert told in message
    assert "schema" in message


def test_helm_3_reads_the_schema_as_helm_4_does(helm3: Helm) -> None:
    assert "replica" in helm3.refusal({"api": {"replica": 1}})


def test_an_umbrella_chart_may_keep_its_own_globals(helm: Helm) -> None:
    helm.render({"global": {"ours": {"anything": 1}}})


def test_keys_that_are_gone_pass_the_schema_to_be_named_by_a_template() -> None:
    for path in pages.removed():
        values: dict[str, Any] = copy.deepcopy(DEFAULTS)
        inner = values
        *above, last = path.split(".")
        for name in above:
            inner = inner.setdefault(name, {})
        inner[last] = "something"
        jsonschema.Draft7Validator(SCHEMA).validate(values)
