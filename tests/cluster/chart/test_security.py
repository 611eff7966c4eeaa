"""What the pods may do: Pod Security restricted, rights, network, secrets as files."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.chart.helm import CHART, Helm, Object, Rendered

CI = sorted(path.relative_to(CHART).as_posix() for path in (CHART / "ci").glob("*-values.yaml"))
FILES = [*CI, "values-production.yaml", "values-demo.yaml"]

#: The kinds of volumes that the profile admits.
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def violations(pod: Object) -> list[str]:
    """What the Pod Security profile `restricted` says against a pod."""
    found = [f"host{what}" for what in ("Network", "PID", "IPC") if pod.get(f"host{what}")]
    security = pod.get("securityContext", {})
    if security.get("runAsNonRoot") is not True:
        found.append("runAsNonRoot")
    if security.get("runAsUser") == 0:
        found.append("runAsUser")
    if security.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        found.append("seccompProfile")
    found += [f"volume {one['name']}" for one in pod.get("volumes", []) if not VOLUMES & {*one}]
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False:
            found.append("allowPrivilegeEscalation")
        if own.get("capabilities") != {"drop": ["ALL"]}:
            found.append("capabilities")
        if own.get("privileged") or own.get("runAsUser") == 0 or own.get("procMount"):
            found.append("privileged")
        found += ["hostPort" for port in container.get("ports", []) if "hostPort" in port]
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_pod_is_admitted_as_restricted(helm: Helm, name: str) -> None:
    for who, pod in helm.render(None, name).pods():
        assert violations(pod) == [], who
        assert pod["enableServiceLinks"] is False, f"{who}: links of other Services are not its settings"
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert {"requests", "limits"} <= {*container["resources"]}


def test_the_check_above_can_fail() -> None:
    container: Object = {"name": "a", "ports": [{"hostPort": 1}]}
    pod = {"hostNetwork": True, "volumes": [{"name": "h", "hostPath": {}}], "containers": [container]}
    assert len(violations(pod)) == 7


def test_no_secret_is_in_the_environment(helm: Helm) -> None:
    for _, pod in helm.render().pods():
        for env in pod["containers"][0].get("env", []):
            assert "secretKeyRef" not in env.get("valueFrom", {})
            if env["name"] in ("CALLBOARD_REDIS_URL_FILE", "CALLBOARD_ADMIN_KEY_FILE"):
                assert env["value"].startswith("/run/secrets/callboard/")
            else:
                assert "URL" not in env["name"]


def volumes(rendered: Rendered, who: str) -> dict[str, Any]:
    pod = dict(rendered.pods())[f"callboard-{who}"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    secrets = {volume["name"]: volume["secret"] for volume in pod["volumes"] if "secret" in volume}
    assert {*secrets} <= {*mounts}
    return {mounts[name]: secret for name, secret in secrets.items()}


def test_each_pod_has_the_secrets_that_it_needs(helm: Helm) -> None:
    rendered = helm.render()
    redis = {"secretName": "callboard-valkey", "items": [{"key": "url", "path": "url"}]}
    auth = {"secretName": "callboard-auth", "items": [{"key": "admin-key", "path": "admin-key"}]}
    base = "/run/secrets/callboard"
    assert volumes(rendered, "api") == {f"{base}/redis": redis, f"{base}/auth": auth}
    assert volumes(rendered, "worker-default") == {f"{base}/redis": redis}
    assert volumes(rendered, "scheduler") == {f"{base}/redis": redis}
    assert volumes(rendered, "test") == {f"{base}/auth": auth}


def test_secrets_from_elsewhere(helm: Helm) -> None:
    rendered = helm.render(None, "ci/external-values.yaml")
    assert rendered.all("Secret") == []
    base = "/run/secrets/callboard"
    assert volumes(rendered, "worker-default") == {
        f"{base}/redis": {"secretName": "redis", "items": [{"key": "redis-url", "path": "url"}]},
        f"{base}/redis-tls": {"secretName": "redis-ca"},
        f"{base}/database": {"secretName": "database", "items": [{"key": "url", "path": "url"}]},
    }
    assert volumes(rendered, "api")[f"{base}/auth"]["secretName"] == "admin"
    assert not rendered.all("StatefulSet")


def rights(rendered: Rendered) -> dict[str, set[tuple[str, str]]]:
    """ServiceAccount to (verb, resource), through the bindings."""
    roles = {item["metadata"]["name"]: item["rules"] for item in rendered.all("Role")}
    found: dict[str, set[tuple[str, str]]] = {}
    for binding in rendered.all("RoleBinding"):
        for subject in binding["subjects"]:
            assert subject["namespace"] == "work"
            for rule in roles[binding["roleRef"]["name"]]:
                for verb in rule["verbs"]:
                    for resource in rule["resources"]:
                        group = "/".join([*filter(None, rule["apiGroups"]), resource])
                        found.setdefault(subject["name"], set()).add((verb, group))
    return found


def test_accounts_may_do_what_is_used_and_no_more(helm: Helm) -> None:
    rendered = helm.render()
    assert rights(rendered) == {
        "callboard-api": {
            ("list", "pods"),
            ("list", "apps/deployments"),
            ("list", "autoscaling/horizontalpodautoscalers"),
        },
        "callboard-scheduler": {("get", "pods")},
        "callboard-worker": {("get", "pods"), ("patch", "pods")},
    }
    assert not rendered.all("ClusterRole")
    assert not rendered.all("ClusterRoleBinding")


def test_a_right_goes_with_what_needs_it(helm: Helm) -> None:
    quiet = {"workerDefaults": {"podDeletionCost": False}, "scaling": {"rbac": False}}
    assert rights(helm.render(quiet)) == {
        "callboard-scheduler": {("get", "pods")},
        "callboard-worker": {("get", "pods")},
    }
    protecting = {**quiet, "workerDefaults": {"podDeletionCost": False, "protectSeconds": 9}}
    assert ("patch", "pods") in rights(helm.render(protecting))["callboard-worker"]
    off = {
        "workerDefaults": {"kubernetes": False},
        "scheduler": {"kubernetes": False},
        "scaling": {"rbac": False},
    }
    assert rights(helm.render(off)) == {}
    assert rights(helm.render({"rbac": {"create": False}})) == {}


def test_a_token_is_mounted_where_it_is_used(helm: Helm) -> None:
    def tokens(values: dict[str, Any]) -> set[str]:
        rendered = helm.render(values)
        assert all(item["automountServiceAccountToken"] is False for item in rendered.all("ServiceAccount"))
        return {who for who, pod in rendered.pods() if pod["automountServiceAccountToken"]}

    assert tokens({}) == {"callboard-api", "callboard-scheduler", "callboard-worker-default"}
    some = {"workers": {"trusted": {}, "default": {"kubernetes": False}}, "scaling": {"rbac": False}}
    assert tokens(some) == {"callboard-scheduler", "callboard-worker-trusted"}


def test_service_accounts_can_be_ones_own(helm: Helm) -> None:
    rendered = helm.render(
        {
            "api": {"serviceAccount": {"name": "mine", "annotations": {"role": "a"}}},
            "workerServiceAccount": {"create": False, "name": "theirs"},
            "scheduler": {"serviceAccount": {"create": False}},
        }
    )
    assert [item["metadata"]["name"] for item in rendered.all("ServiceAccount")] == ["mine"]
    assert rendered.all("ServiceAccount")[0]["metadata"]["annotations"] == {"role": "a"}
    used = {who: pod.get("serviceAccountName") for who, pod in rendered.pods()}
    assert used["callboard-api"] == "mine"
    assert used["callboard-worker-default"] == "theirs"
    assert used["callboard-scheduler"] == "default"


def policy(rendered: Rendered, component: str) -> Object:
    spec: Object = rendered.one("NetworkPolicy", component)["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    return spec


def ports(rules: list[Object]) -> set[int]:
    return {port["port"] for rule in rules for port in rule.get("ports", [])}


def test_each_component_has_a_network_policy(helm: Helm) -> None:
    rendered = helm.render()
    assert ports(policy(rendered, "api")["ingress"]) == {8000, 9000}
    assert ports(policy(rendered, "api")["egress"]) == {53, 6379, 443, 6443}
    assert ports(policy(rendered, "worker")["ingress"]) == {9000}
    assert policy(rendered, "worker")["egress"] == [{}], "tasks reach what they like"
    assert ports(policy(rendered, "scheduler")["ingress"]) == {9000}
    valkey = policy(rendered, "valkey")
    assert valkey["egress"] == []
    (rule,) = valkey["ingress"]
    callers = {peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in rule["from"]}
    assert callers == {"api", "worker", "scheduler"}
    assert ports([rule]) == {6379}
    assert policy(rendered, "test")["ingress"] == []
    assert ports(policy(rendered, "test")["egress"]) == {53, 8000}
    assert helm.render({"networkPolicy": {"enabled": False}}).all("NetworkPolicy") == []


def test_a_policy_selects_its_pods(helm: Helm) -> None:
    rendered = helm.render()
    templates = {
        item["metadata"]["name"]: item["spec"]["template"]["metadata"]["labels"]
        for item in rendered.objects
        if item["kind"] in ("Deployment", "StatefulSet")
    }
    templates |= {item["metadata"]["name"]: item["metadata"]["labels"] for item in rendered.all("Pod")}
    for item in [*rendered.all("NetworkPolicy"), *rendered.all("PodDisruptionBudget")]:
        wanted = item["spec"].get("podSelector", item["spec"].get("selector"))["matchLabels"].items()
        assert any(wanted <= labels.items() for labels in templates.values()), item["metadata"]["name"]


def test_policies_for_a_store_elsewhere(helm: Helm) -> None:
    rendered = helm.render(None, "ci/external-values.yaml")
    assert ports(policy(rendered, "scheduler")["egress"]) == {53, 6380, 26379, 5432, 443, 6443}
    assert not rendered.has("NetworkPolicy", "valkey")


def test_policies_let_in_whom_they_are_told_and_the_test(helm: Helm) -> None:
    rendered = helm.render(None, "ci/hpa-values.yaml")
    http, metrics = policy(rendered, "api")["ingress"]
    assert "namespaceSelector" in http["from"][0]
    assert http["from"][1]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"
    test = next(item for item in rendered.all("Pod") if item["metadata"]["name"] == "callboard-test")
    assert http["from"][1]["podSelector"]["matchLabels"].items() <= test["metadata"]["labels"].items()
    assert "monitoring" in str(metrics["from"])
    assert ports(policy(rendered, "worker")["egress"]) == {53, 6379, 443, 6443}
