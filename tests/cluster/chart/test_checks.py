"""Bad values fail before anything is made, with what is wrong and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.chart.helm import CHART, Helm

PROMETHEUS = {"serverAddress": "http://prometheus:9090"}


def workers(**own: Any) -> dict[str, Any]:
    return {"workers": {"one": own}}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        pytest.param(
            workers(slots=8, slotMemory="256Mi"),
            "workers.one: 8 slots × slotMemory 256Mi + runnerMemory 192Mi are 2240 MiB, but 0.85 of "
            "resources.limits.memory (1Gi) are 870 MiB. Raise the limit to 2636Mi or more",
            id="slots do not fit in memory",
        ),
        pytest.param(
            workers(isolation="loop", slots=1000, slotMemory="1G"),
            "workers.one: 1 slots × slotMemory 1G",
            id="a loop does not fit",
        ),
        pytest.param(
            workers(drainSeconds=60, terminationGracePeriodSeconds=89),
            "workers.one.terminationGracePeriodSeconds: 89 is less than drainSeconds + 30 = 90",
            id="grace below drain",
        ),
        pytest.param(
            workers(queues=["*", "a"]), "workers.one.queues: `*` means all queues", id="star and a name"
        ),
        pytest.param(
            workers(replicas=2, autoscaling={"mode": "hpa"}),
            "workers.one.replicas: with autoscaling.mode hpa the autoscaler sets it",
            id="replicas and an autoscaler",
        ),
        pytest.param(
            workers(autoscaling={"mode": "hpa", "minReplicas": 5, "maxReplicas": 2}),
            "minReplicas 5 is above maxReplicas 2",
            id="min above max",
        ),
        pytest.param(
            workers(autoscaling={"mode": "hpa", "keda": PROMETHEUS}),
            "workers.one.autoscaling: mode hpa and keda.* exclude each other",
            id="hpa with keda's values",
        ),
        pytest.param(
            workers(autoscaling={"mode": "keda", "keda": PROMETHEUS, "hpa": {"matchLabels": {"a": "b"}}}),
            "workers.one.autoscaling: mode keda and hpa.* exclude each other",
            id="keda with hpa's values",
        ),
        pytest.param(
            workers(autoscaling={"mode": "keda"}),
            "keda.serverAddress: mode keda needs the address",
            id="keda blind",
        ),
        pytest.param(
            workers(autoscaling={"mode": "hpa", "keda": {"authenticationRef": "prometheus"}}),
            "workers.one.autoscaling: mode hpa and keda.* exclude each other",
            id="hpa with keda's key",
        ),
        pytest.param(
            workers(env={"CALLBOARD_WORKER_SLOTS": 50}),
            "workers.one.env: CALLBOARD_WORKER_SLOTS is what workers.one.slots says; set that",
            id="slots past the memory's reckoning",
        ),
        pytest.param(
            {"env": {"CALLBOARD_WORKER_DRAIN_SECONDS": "600"}},
            "env: CALLBOARD_WORKER_DRAIN_SECONDS is what workers.default.drainSeconds says",
            id="a drain past the grace",
        ),
        pytest.param(
            workers(isolation="loop", env={"CALLBOARD_WORKER_LOOP_SLOTS": 5}),
            "workers.one.env: CALLBOARD_WORKER_LOOP_SLOTS is what workers.one.slots says",
            id="a loop's slots past the autoscaler",
        ),
        pytest.param(
            workers(resources={"requests": {"memory": "2Gi"}}),
            "workers.one.resources: requests.memory (2Gi) is above limits.memory (1Gi)",
            id="more asked for than allowed",
        ),
        pytest.param(
            {"api": {"resources": {"requests": {"cpu": 1}, "limits": {"cpu": "900m"}}}},
            "api.resources: requests.cpu (1) is above limits.cpu (900m)",
            id="more cpu asked for than allowed",
        ),
        pytest.param(
            {"api": {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}}},
            "api.autoscaling.targetCPU: percent of what? Set api.resources.requests.cpu",
            id="percent of nothing",
        ),
        pytest.param(
            {"api": {"serviceAccount": {"name": "a"}}, "workerServiceAccount": {"name": "a"}},
            "api.serviceAccount and workerServiceAccount would both make the ServiceAccount a",
            id="one account twice",
        ),
        pytest.param(
            {"valkey": {"enabled": False}},
            "redis.existingSecret: valkey.enabled is false",
            id="no store at all",
        ),
        pytest.param({"redis": {"existingSecret": "mine"}}, "but valkey.enabled is true", id="two stores"),
        pytest.param(
            {"auth": {"existingSecret": "a", "adminKey": "0123456789abcdef"}},
            "are both set; set one",
            id="two keys",
        ),
        pytest.param(
            {"applications": ["knowledge", "marketing"]},
            "database.existingSecret: the application marketing keeps its data in PostgreSQL",
            id="sql without a database",
        ),
        pytest.param(
            {"valkey": {"maxmemory": "400Mi"}},
            "valkey.maxmemory: 400Mi is above 60% of resources.limits.memory (512Mi)",
            id="valkey too full to fork",
        ),
        pytest.param(
            {"settings": {"durability": "synced"}},
            "set valkey.appendfsync: always",
            id="synced without fsync",
        ),
        pytest.param(
            {"settings": {"durability": "replicated"}},
            "the chart's Valkey has none",
            id="replicated without a replica",
        ),
        pytest.param(
            {"api": {"replicas": 2, "autoscaling": {"enabled": True}}},
            "api.replicas: with api.autoscaling.enabled the HPA sets it",
            id="api replicas and hpa",
        ),
        pytest.param(
            {"api": {"autoscaling": {"enabled": True, "minReplicas": 9}}},
            "api.autoscaling: minReplicas 9 is above maxReplicas 6",
            id="api min above max",
        ),
        pytest.param(
            {"api": {"autoscaling": {"enabled": True, "targetCPU": None}}},
            "the HPA has no metric",
            id="api hpa without a metric",
        ),
        pytest.param(
            {"api": {"preStopSleepSeconds": 20}},
            "api.terminationGracePeriodSeconds: 30 is less than preStopSleepSeconds + 15 = 35",
            id="api grace",
        ),
        pytest.param(
            {"ingress": {"enabled": True}}, "ingress.hosts: an Ingress needs at least one", id="no host"
        ),
        pytest.param(
            {"httpRoute": {"enabled": True}}, "httpRoute.parentRefs: a route needs a Gateway", id="no gateway"
        ),
    ],
)
def test_a_bad_combination_says_what_to_do(helm: Helm, values: dict[str, Any], told: str) -> None:
    assert told in helm.refusal(values)


@pytest.mark.parametrize(
    ("memory", "limit", "fits"),
    [
        ("339Mi", "1Gi", True),
        ("340Mi", "1Gi", False),
        ("0.33Gi", "1024Mi", True),
        ("300M", "1000000000", True),
        ("330M", "1G", False),
        ("355467264", "1Gi", True),
        ("339Mi", "1073741824000m", True),
        ("340Mi", "1.073741824e9", False),
        ("340Mi", "1Pi", True),
        ("340Mi", "+.9Gi", False),
        ("339Mi", 1073741824, True),
    ],
)
def test_memory_is_reckoned_in_every_unit(helm: Helm, memory: str, limit: str | int, fits: bool) -> None:
    resources = {"requests": {"memory": "64Mi"}, "limits": {"memory": limit}}
    values = workers(slots=2, slotMemory=memory, resources=resources)
    if fits:
        helm.render(values)
    else:
        assert "workers.one: 2 slots" in helm.refusal(values)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("workers.default.terminationGracePeriodSeconds=89", "89 is less than drainSeconds + 30 = 90"),
        ("workers.default.slots=9", "workers.default: 9 slots"),
        ("workers.default.autoscaling.mode=hpa,workers.default.replicas=1", "workers.default.replicas"),
        ("workers.default.autoscaling.mode=hpa,workers.default.autoscaling.minReplicas=11", "minReplicas 11"),
        ("api.autoscaling.enabled=true,api.replicas=2", "api.replicas"),
    ],
)
def test_a_number_from_the_command_line_is_checked_too(helm: Helm, given: str, told: str) -> None:
    # Helm makes other numbers of --set than of a file.
    done = helm.run("template", "callboard", str(CHART), "--kube-version", "1.37.1", "--set", given)
    assert done.returncode != 0
    assert told in done.stderr


def test_a_container_without_a_limit_is_not_reckoned(helm: Helm) -> None:
    helm.render(workers(slots=100, resources={"limits": {"memory": None}}))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"metrics": {"podMonitor": {"enabled": True}}}, "monitoring.coreos.com/v1/PodMonitor"),
        ({"metrics": {"prometheusRule": {"enabled": True}}}, "monitoring.coreos.com/v1/PrometheusRule"),
        (
            {"httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]}},
            "gateway.networking.k8s.io/v1/HTTPRoute",
        ),
        (workers(autoscaling={"mode": "keda", "keda": PROMETHEUS}), "keda.sh/v1alpha1/ScaledObject"),
    ],
)
def test_what_the_cluster_lacks_is_named_with_its_cure(helm: Helm, values: dict[str, Any], kind: str) -> None:
    told = helm.refusal(values, crds=())
    assert f"needs {kind}, which this cluster does not have. Install" in told


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"worker": {"replicas": 2}}, "worker is not a value of this chart; use workers.<set>"),
        ({"replicaCount": 2}, "replicaCount is not a value of this chart; use api.replicas"),
        ({"redis": {"url": "redis://x"}}, "redis.url is not a value of this chart; use redis.existingSecret"),
        ({"redis": {"enabled": False}}, "redis.enabled is not a value of this chart; use valkey.enabled"),
        ({"autoscaling": {"enabled": True}}, "use workerDefaults.autoscaling"),
    ],
)
def test_a_key_that_is_not_there_names_its_successor(helm: Helm, values: dict[str, Any], told: str) -> None:
    assert told in helm.refusal(values)


def test_an_older_kubernetes_is_refused(helm: Helm, helm3: Helm) -> None:
    for either in (helm, helm3):
        assert "requires kubeVersion: >=1.31.0-0" in either.refusal({}, kubernetes="1.30.9")
        either.render({}, kubernetes="1.31.4-eks-1234")
