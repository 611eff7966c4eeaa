"""The ways in, and what stands between a pod and its end."""

from __future__ import annotations

import pytest

from tests.cluster.chart.helm import Helm

HOST = {"host": "callboard.example.com"}


def test_there_is_no_way_in_unless_asked_for(helm: Helm) -> None:
    rendered = helm.render()
    assert rendered.all("Ingress") == rendered.all("HTTPRoute") == []
    (service,) = [item for item in rendered.all("Service") if item["metadata"]["name"] == "callboard-api"]
    assert service["spec"]["type"] == "ClusterIP"
    assert service["spec"]["ports"][0]["port"] == 8000


@pytest.mark.parametrize(
    ("controller", "annotation", "value"),
    [
        ("nginx", "nginx.ingress.kubernetes.io/proxy-buffering", "off"),
        ("nginx", "nginx.ingress.kubernetes.io/proxy-read-timeout", "3600"),
        ("haproxy", "haproxy.org/timeout-server", "1h"),
        ("alb", "alb.ingress.kubernetes.io/load-balancer-attributes", "idle_timeout.timeout_seconds=3600"),
    ],
)
def test_an_ingress_lets_streams_and_long_polls_live(
    helm: Helm, controller: str, annotation: str, value: str
) -> None:
    values = {"ingress": {"enabled": True, "controller": controller, "hosts": [HOST]}}
    assert helm.render(values).one("Ingress", "api")["metadata"]["annotations"][annotation] == value
    own = {"ingress": {**values["ingress"], "annotations": {annotation: "mine", "other": "too"}}}
    annotations = helm.render(own).one("Ingress", "api")["metadata"]["annotations"]
    assert (annotations[annotation], annotations["other"]) == ("mine", "too")


def test_an_ingress_leads_to_the_service(helm: Helm) -> None:
    tls = [{"hosts": ["callboard.example.com"], "secretName": "tls"}]
    hosts = [HOST, {"host": "b.example.com", "path": "/board", "pathType": "Exact"}]
    values = {"ingress": {"enabled": True, "className": "nginx", "hosts": hosts, "tls": tls}}
    spec = helm.render(values).one("Ingress", "api")["spec"]
    assert spec["ingressClassName"] == "nginx"
    assert spec["tls"] == tls
    first, second = (rule["http"]["paths"][0] for rule in spec["rules"])
    assert first["backend"] == {"service": {"name": "callboard-api", "port": {"name": "http"}}}
    assert (first["path"], first["pathType"]) == ("/", "Prefix")
    assert (second["path"], second["pathType"]) == ("/board", "Exact")


def test_a_route_has_no_time_limit_of_its_own(helm: Helm) -> None:
    values = {
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["a.example.com"]}
    }
    spec = helm.render(values).one("HTTPRoute", "api")["spec"]
    (rule,) = spec["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    assert rule["backendRefs"] == [{"name": "callboard-api", "port": 8000}]
    assert spec["hostnames"] == ["a.example.com"]


def test_the_service_can_have_another_port(helm: Helm) -> None:
    rendered = helm.render({"api": {"service": {"port": 80, "type": "LoadBalancer"}}})
    service = rendered.one("Service", "api")["spec"]
    assert (service["type"], service["ports"][0]["port"], service["ports"][0]["targetPort"]) == (
        "LoadBalancer",
        80,
        "http",
    )
    (test,) = rendered.all("Pod")
    assert "http://callboard-api:80" in test["spec"]["containers"][0]["command"]


def test_an_api_pod_leaves_the_service_before_it_stops(helm: Helm) -> None:
    pod = helm.render().one("Deployment", "api")["spec"]["template"]["spec"]
    assert pod["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert pod["terminationGracePeriodSeconds"] == 30


def test_no_budget_can_wedge_a_drain(helm: Helm) -> None:
    rendered = helm.render(
        {"api": {"podDisruptionBudget": {"maxUnavailable": "30%"}}, "workers": {"more": {}}}
    )
    budgets = {item["metadata"]["name"]: item["spec"] for item in rendered.all("PodDisruptionBudget")}
    assert {*budgets} == {
        "callboard-api",
        "callboard-scheduler",
        "callboard-worker-default",
        "callboard-worker-more",
    }
    for spec in budgets.values():
        assert "minAvailable" not in spec
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert budgets["callboard-api"]["maxUnavailable"] == "30%"
    assert budgets["callboard-worker-more"]["maxUnavailable"] == 1


def test_priorities_put_the_api_above_the_workers(helm: Helm) -> None:
    rendered = helm.render({"priorityClasses": {"create": True}})
    value = {item["metadata"]["name"]: item["value"] for item in rendered.all("PriorityClass")}
    assert value["work-callboard-api"] > value["work-callboard-scheduler"] > value["work-callboard-worker"]
    used = {who: pod.get("priorityClassName") for who, pod in rendered.pods()}
    assert used["callboard-worker-default"] == "work-callboard-worker"
    assert used["callboard-valkey"] == used["callboard-api"] == "work-callboard-api"
    assert "priorityClassName" not in str(helm.render().objects)
