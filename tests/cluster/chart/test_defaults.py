"""What `helm install` without values makes."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.cluster.chart.helm import CHART, Helm, Rendered

MIB = 1024 * 1024
UNITS = {"m": 0.001, "Mi": MIB, "Gi": 1024 * MIB, "": 1}


def amount(text: str) -> float:
    number = text.rstrip("mMiG")
    return float(number) * UNITS[text[len(number) :]]


def test_it_is_an_api_a_worker_for_all_queues_a_scheduler_and_a_valkey(helm: Helm) -> None:
    rendered = helm.render()
    assert [item["metadata"]["name"] for item in rendered.all("Deployment")] == [
        "callboard-api",
        "callboard-scheduler",
        "callboard-worker-default",
    ]
    assert [item["metadata"]["name"] for item in rendered.all("StatefulSet")] == ["callboard-valkey"]
    worker = rendered.one("Deployment", "worker-default")
    assert worker["metadata"]["annotations"]["callboard.dev/queues"] == "*"
    assert worker["metadata"]["labels"]["callboard.dev/worker-set"] == "default"
    names = {env["name"] for env in worker["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert "CALLBOARD_WORKER_QUEUES" not in names, "all queues is the setting's default"
    assert "CALLBOARD_MODULES" not in names, "an image's own ENV must count"


def test_applications_are_off_and_nothing_scales_by_itself(helm: Helm) -> None:
    rendered = helm.render()
    for _, pod in rendered.pods():
        for env in pod["containers"][0].get("env", []):
            if env["name"] == "CALLBOARD_APPS":
                assert env["value"] == "none"
    assert not rendered.all("HorizontalPodAutoscaler")
    assert not rendered.all("ScaledObject")


def test_it_fits_on_two_processors_and_two_gibibytes(helm: Helm) -> None:
    processors = requested = most = 0.0
    for name, pod in helm.render().pods():
        if name == "callboard-test":
            continue
        for container in pod["containers"]:
            resources: dict[str, Any] = container["resources"]
            processors += amount(resources["requests"]["cpu"])
            requested += amount(resources["requests"]["memory"])
            most += amount(resources["limits"]["memory"])
    assert processors <= 2
    assert requested <= most <= 2048 * MIB


def test_the_deployments_leave_their_replicas_to_kubectl_scale(helm: Helm) -> None:
    for deployment in helm.render().all("Deployment"):
        assert "replicas" not in deployment["spec"]


def test_a_key_and_a_password_are_made_and_agree(helm: Helm) -> None:
    rendered = helm.render()
    auth = rendered.one("Secret", "auth")["data"]
    assert len(base64.b64decode(auth["admin-key"])) == 40
    valkey = {
        key: base64.b64decode(value).decode()
        for key, value in rendered.one("Secret", "valkey")["data"].items()
    }
    assert valkey["auth.conf"] == f"requirepass {valkey['password']}\n"
    assert valkey["url"] == f"redis://:{valkey['password']}@callboard-valkey:6379/0"


def test_valkey_keeps_what_it_is_told(helm: Helm) -> None:
    rendered = helm.render()
    config = rendered.one("ConfigMap", "valkey")["data"]["valkey.conf"].splitlines()
    assert {
        "appendonly yes",
        "appendfsync everysec",
        "maxmemory-policy noeviction",
        f"maxmemory {256 * MIB}",
    } <= {*config}
    valkey = rendered.one("StatefulSet", "valkey")["spec"]
    assert valkey["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert valkey["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "4Gi"
    assert valkey["replicas"] == 1


def test_the_only_hook_is_the_tests(helm: Helm) -> None:
    hooks = {
        Rendered.name(item): item["metadata"]["annotations"]["helm.sh/hook"]
        for item in helm.render().objects
        if "helm.sh/hook" in item["metadata"].get("annotations", {})
    }
    assert hooks == {"Pod/callboard-test": "test", "NetworkPolicy/callboard-test": "test"}


def test_names_carry_the_release(helm: Helm) -> None:
    names = {item["metadata"]["name"] for item in helm.render(release="shop").objects}
    assert all(name.startswith("shop-callboard") for name in names)
    longest = helm.render({"workers": {"a" * 20: {}}}, release="r" * 53)
    assert max(len(item["metadata"]["name"]) for item in longest.objects) == 63
    services = [item["metadata"]["name"] for item in longest.all("Service")]
    assert all(len(name) <= 63 for name in services)
    short = helm.render({"fullnameOverride": "cb"})
    assert {item["metadata"]["name"].split("-")[0] for item in short.objects} == {"cb"}


def notes(helm: Helm, values: dict[str, Any]) -> str:
    done = helm.run(
        *("install", "callboard", str(CHART), "--dry-run=client", "--namespace", "work"),
        "--values=-",
        given=json.dumps(values),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def test_the_notes_lead_to_the_key_and_the_first_task(helm: Helm) -> None:
    told = notes(helm, {})
    assert "get secret callboard-auth" in told
    assert "port-forward service/callboard-api 8000:8000" in told
    assert '{"name": "callboard.ping"}' in told
    assert "FROM callboard-worker" in told
    assert "scale deployment/callboard-worker-default" in told
    assert "data-callboard-valkey-0" in told


def test_the_notes_say_what_holds_a_sets_pods(helm: Helm) -> None:
    told = notes(
        helm,
        {
            "workers": {
                "default": {"autoscaling": {"mode": "hpa"}},
                "fixed": {"queues": ["a"], "replicas": 2},
            }
        },
    )
    assert "1 to 10 by an HPA, which undoes `kubectl scale`" in told
    assert "/apis/external.metrics.k8s.io/v1beta1/namespaces/work/callboard_queue_demand_slots" in told
    assert "default is sized on the demand of all queues" in told
    assert "until the next upgrade, which sets 2 again" in told
    assert "NO WORKER SET IS ON" in notes(helm, {"workers": {"default": None}})
