"""Worker sets: merged over the defaults, one Deployment each."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.chart.helm import Helm, Object


def worker(helm: Helm, own: dict[str, Any], defaults: dict[str, Any] | None = None) -> Object:
    values = {"workers": {"default": None, "one": own}, "workerDefaults": defaults or {}}
    return helm.render(values).one("Deployment", "worker-one")


def pod(deployment: Object) -> Object:
    spec: Object = deployment["spec"]["template"]["spec"]
    return spec


def environment(deployment: Object) -> dict[str, Any]:
    return {
        env["name"]: env.get("value", env.get("valueFrom")) for env in pod(deployment)["containers"][0]["env"]
    }


def test_one_more_set_is_four_lines(helm: Helm) -> None:
    rendered = helm.render({"workers": {"reports": {"queues": ["reports", "mail"], "slots": 3}}})
    assert rendered.has("Deployment", "worker-default")
    reports = rendered.one("Deployment", "worker-reports")
    assert reports["metadata"]["annotations"]["callboard.dev/queues"] == "reports,mail"
    assert environment(reports)["CALLBOARD_WORKER_QUEUES"] == "reports,mail"
    assert environment(reports)["CALLBOARD_WORKER_SLOTS"] == "3"
    assert reports["spec"]["selector"]["matchLabels"]["callboard.dev/worker-set"] == "reports"
    assert rendered.has("PodDisruptionBudget", "worker-reports")


def test_the_set_wins_over_the_defaults_in_depth(helm: Helm) -> None:
    made = worker(
        helm,
        {"resources": {"limits": {"memory": "3Gi"}}, "env": {"B": "set"}},
        {"resources": {"requests": {"cpu": "1"}}, "env": {"A": "default", "B": "default"}, "slots": 4},
    )
    assert pod(made)["containers"][0]["resources"] == {
        "requests": {"cpu": "1", "memory": "512Mi"},
        "limits": {"memory": "3Gi"},
    }
    assert environment(made)["A"] == "default"
    assert environment(made)["B"] == "set"
    assert environment(made)["CALLBOARD_WORKER_SLOTS"] == "4"


def test_zero_and_false_win_too(helm: Helm) -> None:
    made = worker(
        helm,
        {"drainSeconds": 0, "podDeletionCost": False, "podDisruptionBudget": {"enabled": False}},
        {"drainSeconds": 100},
    )
    assert environment(made)["CALLBOARD_WORKER_DRAIN_SECONDS"] == "0"
    assert environment(made)["CALLBOARD_CLUSTER_DELETION_COST"] == "false"
    assert pod(made)["terminationGracePeriodSeconds"] == 30


def test_the_defaults_stay_as_they_are_for_the_next_set(helm: Helm) -> None:
    rendered = helm.render({"workers": {"a": {"env": {"ONLY": "a"}, "slots": 1}, "b": {}}})
    assert "ONLY" not in environment(rendered.one("Deployment", "worker-b"))
    assert environment(rendered.one("Deployment", "worker-b"))["CALLBOARD_WORKER_SLOTS"] == "2"


def test_a_null_takes_a_default_away(helm: Helm) -> None:
    made = worker(
        helm,
        {"resources": {"limits": None}, "env": {"A": None}, "nodeSelector": {"disk": None}, "affinity": None},
        {"env": {"A": "1", "B": "2"}, "nodeSelector": {"disk": "ssd"}, "affinity": {"nodeAffinity": {}}},
    )
    assert pod(made)["containers"][0]["resources"] == {"requests": {"cpu": "250m", "memory": "512Mi"}}
    assert "A" not in environment(made)
    assert environment(made)["B"] == "2"
    assert "nodeSelector" not in pod(made)
    assert "affinity" not in pod(made)


def test_recreate_has_no_rolling_update(helm: Helm) -> None:
    assert worker(helm, {"strategy": {"type": "Recreate"}})["spec"]["strategy"] == {"type": "Recreate"}


def test_a_set_that_is_off_or_null_is_not_there(helm: Helm) -> None:
    rendered = helm.render({"workers": {"default": None, "off": {"enabled": False}, "on": {}}})
    assert [
        item["metadata"]["name"]
        for item in rendered.all("Deployment")
        if "worker" in item["metadata"]["name"]
    ] == ["callboard-worker-on"]


def test_the_pod_waits_for_the_drain_and_half_a_minute(helm: Helm) -> None:
    assert pod(worker(helm, {"drainSeconds": 600}))["terminationGracePeriodSeconds"] == 630
    long = worker(helm, {"drainSeconds": 600, "terminationGracePeriodSeconds": 900})
    assert pod(long)["terminationGracePeriodSeconds"] == 900
    assert environment(long)["CALLBOARD_WORKER_DRAIN_SECONDS"] == "600"


def test_slots_of_an_event_loop_are_the_loops(helm: Helm) -> None:
    made = environment(worker(helm, {"isolation": "loop", "slots": 1000}))
    assert made["CALLBOARD_WORKER_LOOP_SLOTS"] == "1000"
    assert "CALLBOARD_WORKER_SLOTS" not in made


def test_the_image_is_the_sets_own(helm: Helm) -> None:
    image = {"registry": "r.example.com/", "repository": "acme/worker", "tag": "7"}
    assert pod(worker(helm, {"image": image}))["containers"][0]["image"] == "r.example.com/acme/worker:7"
    digest = "sha256:" + "0" * 64
    pinned = worker(helm, {"image": {**image, "digest": digest}})
    assert pod(pinned)["containers"][0]["image"] == f"r.example.com/acme/worker@{digest}"


def test_modules_and_environment_reach_the_worker(helm: Helm) -> None:
    secret = {"valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}}
    made = environment(
        worker(
            helm,
            {"modules": ["acme.tasks", "acme.more"], "env": {"TOKEN": secret, "RATE": 1.5, "BIG": 2000000}},
        )
    )
    assert made["CALLBOARD_MODULES"] == "acme.tasks,acme.more"
    assert made["TOKEN"] == secret["valueFrom"]
    assert made["RATE"] == "1.5"
    assert made["BIG"] == "2000000"


def test_env_for_all_yields_to_the_sets_and_wins_over_the_charts(helm: Helm) -> None:
    values = {
        "env": {"CALLBOARD_LOG_LEVEL": "debug", "SHARED": "all"},
        "workers": {"default": {"env": {"SHARED": "set"}}},
    }
    rendered = helm.render(values)
    assert environment(rendered.one("Deployment", "worker-default"))["SHARED"] == "set"
    assert environment(rendered.one("Deployment", "worker-default"))["CALLBOARD_LOG_LEVEL"] == "debug"
    assert environment(rendered.one("Deployment", "api"))["SHARED"] == "all"


def test_probes_can_be_changed_replaced_and_taken_away(helm: Helm) -> None:
    container = pod(
        worker(
            helm,
            {
                "probes": {
                    "startup": None,
                    "readiness": {"periodSeconds": 1},
                    "liveness": {"exec": {"command": ["true"]}},
                }
            },
        )
    )["containers"][0]
    assert "startupProbe" not in container
    assert container["readinessProbe"]["periodSeconds"] == 1
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "ops"}
    assert container["livenessProbe"]["exec"] == {"command": ["true"]}
    assert "httpGet" not in container["livenessProbe"]


@pytest.mark.parametrize(
    ("spread", "wanted"),
    [
        ("preferred", ["ScheduleAnyway", "ScheduleAnyway"]),
        ("required", ["ScheduleAnyway", "DoNotSchedule"]),
        ("none", []),
    ],
)
def test_pods_spread_over_zones_and_nodes(helm: Helm, spread: str, wanted: list[str]) -> None:
    constraints = pod(worker(helm, {"spread": spread})).get("topologySpreadConstraints", [])
    assert [one["whenUnsatisfiable"] for one in constraints] == wanted
    for one in constraints:
        assert one["labelSelector"]["matchLabels"]["callboard.dev/worker-set"] == "one"


def test_own_constraints_take_the_place_of_the_charts(helm: Helm) -> None:
    own = [{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}]
    (constraint,) = pod(worker(helm, {"topologySpreadConstraints": own}))["topologySpreadConstraints"]
    assert constraint["topologyKey"] == "rack"
    assert constraint["labelSelector"]["matchLabels"]["callboard.dev/worker-set"] == "one"


def test_placement_volumes_labels_and_annotations_are_passed_on(helm: Helm) -> None:
    own: dict[str, Any] = {
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "extraVolumes": [{"name": "models", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "models", "mountPath": "/models"}],
        "podLabels": {"tier": "gpu"},
        "podAnnotations": {"note": "pod"},
        "annotations": {"note": "deployment"},
        "priorityClassName": "batch",
        "runtimeClassName": "gvisor",
        "envFrom": [{"secretRef": {"name": "acme"}}],
        "initContainers": [{"name": "fetch", "image": "fetch"}],
        "extraContainers": [{"name": "beside", "image": "beside"}],
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0}},
    }
    made = worker(helm, own)
    spec = pod(made)
    assert (spec["nodeSelector"], spec["tolerations"], spec["affinity"], spec["priorityClassName"]) == (
        own["nodeSelector"],
        own["tolerations"],
        own["affinity"],
        "batch",
    )
    assert spec["runtimeClassName"] == "gvisor"
    assert spec["initContainers"] == own["initContainers"]
    assert [container["name"] for container in spec["containers"]] == ["worker", "beside"]
    assert spec["containers"][0]["envFrom"] == own["envFrom"]
    assert own["extraVolumes"][0] in spec["volumes"]
    assert own["extraVolumeMounts"][0] in spec["containers"][0]["volumeMounts"]
    assert made["spec"]["template"]["metadata"]["labels"]["tier"] == "gpu"
    assert "tier" not in made["spec"]["selector"]["matchLabels"]
    assert made["spec"]["template"]["metadata"]["annotations"]["note"] == "pod"
    assert made["metadata"]["annotations"]["note"] == "deployment"
    assert made["spec"]["strategy"] == own["strategy"]


def test_what_the_pod_tells_kubernetes(helm: Helm) -> None:
    on = environment(worker(helm, {"protectSeconds": 90}))
    assert on["CALLBOARD_CLUSTER_POD"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert on["CALLBOARD_CLUSTER_PROTECT_SECONDS"] == "90"
    off = worker(helm, {"kubernetes": False})
    assert environment(off)["CALLBOARD_CLUSTER"] == "off"
    assert pod(off)["automountServiceAccountToken"] is False
