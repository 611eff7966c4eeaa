"""autoscaling.mode: none leaves replicas alone, hpa and keda follow the demand."""

from __future__ import annotations

from typing import Any

from tests.cluster.chart.helm import Helm, Object

PROMETHEUS = {"serverAddress": "http://prometheus:9090"}


def scaler(helm: Helm, kind: str, own: dict[str, Any], **more: Any) -> Object:
    rendered = helm.render({"workers": {"one": {"queues": ["a", "b"], **more, "autoscaling": own}}})
    assert "replicas" not in rendered.one("Deployment", "worker-one")["spec"]
    return rendered.one(kind, "worker-one")


def test_without_an_autoscaler_replicas_are_rendered_only_if_set(helm: Helm) -> None:
    rendered = helm.render({"workers": {"free": {}, "set": {"replicas": 3}, "stopped": {"replicas": 0}}})
    assert "replicas" not in rendered.one("Deployment", "worker-free")["spec"]
    assert rendered.one("Deployment", "worker-set")["spec"]["replicas"] == 3
    assert rendered.one("Deployment", "worker-stopped")["spec"]["replicas"] == 0
    assert not rendered.all("HorizontalPodAutoscaler")
    assert not rendered.all("ScaledObject")


def test_an_hpa_divides_the_demand_of_its_queues_by_the_slots(helm: Helm) -> None:
    hpa = scaler(
        helm, "HorizontalPodAutoscaler", {"mode": "hpa", "minReplicas": 2, "maxReplicas": 7}, slots=3
    )
    assert hpa["metadata"]["annotations"]["callboard.dev/queues"] == "a,b"
    spec = hpa["spec"]
    assert spec["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "callboard-worker-one",
    }
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 7)
    assert spec["metrics"] == [
        {
            "type": "External",
            "external": {
                "metric": {
                    "name": "callboard_queue_demand_slots",
                    "selector": {
                        "matchExpressions": [{"key": "queue", "operator": "In", "values": ["a", "b"]}]
                    },
                },
                "target": {"type": "AverageValue", "averageValue": "3"},
            },
        }
    ]


def test_an_hpa_for_all_queues_selects_none(helm: Helm) -> None:
    hpa = helm.render({"workerDefaults": {"autoscaling": {"mode": "hpa"}}}).one(
        "HorizontalPodAutoscaler", "worker-default"
    )
    assert "selector" not in hpa["spec"]["metrics"][0]["external"]["metric"]


def test_up_is_fast_and_down_slow(helm: Helm) -> None:
    behavior = scaler(helm, "HorizontalPodAutoscaler", {"mode": "hpa", "scaleDownStabilizationSeconds": 900})[
        "spec"
    ]["behavior"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 900
    assert "Pods" in {policy["type"] for policy in behavior["scaleUp"]["policies"]}, "a share of zero is zero"
    up = max(policy["value"] / policy["periodSeconds"] for policy in behavior["scaleUp"]["policies"])
    down = max(policy["value"] / policy["periodSeconds"] for policy in behavior["scaleDown"]["policies"])
    assert up > 4 * down


def test_an_own_behavior_replaces_the_charts(helm: Helm) -> None:
    own = {"scaleDown": {"selectPolicy": "Disabled"}}
    assert (
        scaler(helm, "HorizontalPodAutoscaler", {"mode": "hpa", "behavior": own})["spec"]["behavior"] == own
    )


def test_more_metrics_labels_and_another_target(helm: Helm) -> None:
    extra = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
    spec = scaler(
        helm,
        "HorizontalPodAutoscaler",
        {
            "mode": "hpa",
            "demandPerPod": 9,
            "hpa": {"extraMetrics": [extra], "matchLabels": {"cluster": "one"}},
        },
    )["spec"]
    assert spec["metrics"][1] == extra
    assert spec["metrics"][0]["external"]["metric"]["selector"]["matchLabels"] == {"cluster": "one"}
    assert spec["metrics"][0]["external"]["target"]["averageValue"] == "9"


def test_an_hpa_scales_to_zero_where_kubernetes_can(helm: Helm) -> None:
    assert (
        scaler(helm, "HorizontalPodAutoscaler", {"mode": "hpa", "minReplicas": 0})["spec"]["minReplicas"] == 0
    )
    values = {"workers": {"one": {"autoscaling": {"mode": "hpa", "minReplicas": 0}}}}
    assert "from Kubernetes 1.37 on; this is v1.36.2" in helm.refusal(values, kubernetes="1.36.2")


def test_keda_asks_prometheus_and_takes_no_answer_for_no_answer(helm: Helm) -> None:
    spec = scaler(
        helm, "ScaledObject", {"mode": "keda", "minReplicas": 0, "maxReplicas": 4, "keda": PROMETHEUS}
    )["spec"]
    assert spec["scaleTargetRef"]["name"] == "callboard-worker-one"
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 4)
    assert spec["fallback"] == {"failureThreshold": 3, "replicas": 2, "behavior": "currentReplicasIfHigher"}
    (trigger,) = spec["triggers"]
    assert trigger["metadata"] == {
        "serverAddress": "http://prometheus:9090",
        "query": 'sum(max by (queue) (callboard_queue_demand_slots{namespace="work",queue=~"a|b"}))',
        "threshold": "2",
        "ignoreNullValues": "false",
    }
    assert (
        spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"][
            "stabilizationWindowSeconds"
        ]
        == 300
    )


def test_kedas_query_takes_dots_as_dots_and_a_star_as_all(helm: Helm) -> None:
    def query(queues: list[str]) -> str:
        values = {"workers": {"one": {"queues": queues, "autoscaling": {"mode": "keda", "keda": PROMETHEUS}}}}
        text: str = helm.render(values).one("ScaledObject", "worker-one")["spec"]["triggers"][0]["metadata"][
            "query"
        ]
        return text

    assert r'queue=~"mail\\.eu"' in query(["mail.eu"])
    assert 'queue=~".+"' in query(["*"])


def test_kedas_options(helm: Helm) -> None:
    more = {"type": "cron", "metadata": {"timezone": "UTC"}}
    keda = {**PROMETHEUS, "query": "vector(1)", "authenticationRef": "prometheus", "extraTriggers": [more]}
    first, second = scaler(helm, "ScaledObject", {"mode": "keda", "keda": keda})["spec"]["triggers"]
    assert first["metadata"]["query"] == "vector(1)"
    assert first["authenticationRef"] == {"name": "prometheus"}
    assert second == more


def test_each_set_has_its_own_mode(helm: Helm) -> None:
    rendered = helm.render(
        {
            "workers": {
                "a": {"autoscaling": {"mode": "hpa"}},
                "b": {"autoscaling": {"mode": "keda", "keda": PROMETHEUS}},
                "c": {},
            }
        }
    )
    assert [item["metadata"]["name"] for item in rendered.all("HorizontalPodAutoscaler")] == [
        "callboard-worker-a"
    ]
    assert [item["metadata"]["name"] for item in rendered.all("ScaledObject")] == ["callboard-worker-b"]


def test_the_apis_hpa_counts_processors_and_requests(helm: Helm) -> None:
    values = {"api": {"autoscaling": {"enabled": True, "targetRequestsPerSecond": 50}}}
    rendered = helm.render(values)
    assert "replicas" not in rendered.one("Deployment", "api")["spec"]
    processors, requests = rendered.one("HorizontalPodAutoscaler", "api")["spec"]["metrics"]
    assert processors["containerResource"]["target"]["averageUtilization"] == 70
    assert requests["pods"] == {
        "metric": {"name": "callboard_http_requests"},
        "target": {"type": "AverageValue", "averageValue": "50"},
    }
