"""How queues scale: what limits them, by what the cluster says of their Deployments and autoscalers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from callboard import settings
from callboard.cluster.facts import Autoscaler, Container, Deployment, Pod
from callboard.cluster.scales import Scales, weigh
from callboard.errors import InvalidSetting
from callboard.inspector.scaling import Scaling
from tests.support.kube_server import KubeServer, kube_server, listed
from tests.support.waiting import wait_until_async

OWN = {"set": "mail"}


def workers(**fields: object) -> Deployment:
    given: dict[str, object] = {
        "name": "w-mail",
        "queues": ("mail",),
        "replicas": 2,
        "ready": 2,
        "selector": OWN,
        **fields,
    }
    return Deployment(**given)  # type: ignore[arg-type]


def scaler(*conditions: Mapping[str, tuple[bool, str]], most: int = 5, keda: bool = False) -> Autoscaler:
    return Autoscaler(
        "h", "w-mail", most, keda, {name: one for each in conditions for name, one in each.items()}
    )


def waiting(reason: str = "", *, unschedulable: str = "", deleted: bool = False) -> Pod:
    return Pod(
        "p",
        0,
        deleted,
        unschedulable=unschedulable,
        labels={**OWN, "more": "of it"},
        containers=(Container("worker", (), reason),),
    )


LIMITED = {"ScalingLimited": (True, "TooManyReplicas")}
BLIND = {"ScalingActive": (False, "FailedGetExternalMetric")}
OFF = {"ScalingActive": (False, "ScalingDisabled")}


@pytest.mark.parametrize(
    ("deployment", "autoscaler", "pods", "limit"),
    [
        (workers(), scaler(), [], None),
        (workers(), None, [], "manual"),
        (workers(), scaler(LIMITED), [], "max"),
        (workers(), scaler({"ScalingLimited": (True, "ScaleUpLimit")}), [], None),
        (workers(), scaler({"ScalingLimited": (True, "TooFewReplicas")}), [], None),
        (workers(), scaler(BLIND, LIMITED), [], "metric"),
        (workers(), scaler({"AbleToScale": (False, "FailedGetScale")}), [], "metric"),
        (workers(replicas=0, ready=0), scaler(OFF), [], "paused"),
        (workers(replicas=0, ready=0), scaler(OFF, keda=True), [], None),
        (workers(paused=True), scaler(LIMITED), [], "paused"),
        (workers(failure='pods "x" is forbidden: exceeded quota: pods'), scaler(LIMITED), [], "quota"),
        (workers(failure="violates PodSecurity"), scaler(), [], "refused"),
        (workers(ready=1), scaler(), [waiting(unschedulable="no node")], "unschedulable"),
        (workers(ready=1), scaler(), [waiting("ImagePullBackOff")], "image"),
        (workers(ready=1), None, [waiting("CrashLoopBackOff")], "crashing"),
        (workers(ready=1), scaler(), [waiting("ContainerCreating")], None),
        (workers(ready=1), scaler(), [waiting("CrashLoopBackOff", deleted=True)], None),
        (workers(ready=2), scaler(), [waiting("CrashLoopBackOff")], None),
        (workers(ready=1, selector={"set": "other"}), scaler(), [waiting("CrashLoopBackOff")], None),
    ],
)
def test_what_limits(
    deployment: Deployment, autoscaler: Autoscaler | None, pods: list[Pod], limit: str | None
) -> None:
    [(queue, scaling)] = weigh([deployment], [autoscaler] if autoscaler else [], pods).items()
    assert queue == "mail"
    assert scaling.limited_by == limit
    assert (scaling.desired, scaling.ready) == (deployment.replicas, deployment.ready)
    assert scaling.max == (autoscaler.most if autoscaler else None)


def test_a_queue_that_several_deployments_serve() -> None:
    """One that may still grow means that the queue may."""
    hers = scaler(LIMITED, most=4)
    his = Autoscaler("i", "w-more", 6, conditions={})
    more = workers(name="w-more", queues=("mail", "reports"), replicas=3, ready=1)
    found = weigh([workers(), more], [hers, his])
    assert found == {"mail": Scaling(5, 3, 10, None), "reports": Scaling(3, 1, 6, None)}
    both = weigh([workers(), more], [hers, Autoscaler("i", "w-more", 6, conditions=BLIND)])
    assert both["mail"] == Scaling(5, 3, 10, "metric"), "the first in the order of precedence"
    assert weigh([workers(), more], [hers])["mail"] == Scaling(5, 3, None, "max")


def test_workers_of_every_queue_count_for_each() -> None:
    found = weigh([workers(), workers(name="w-all", queues=("*",), replicas=1, ready=0)], [scaler()])
    assert found == {"mail": Scaling(3, 2, None, None), "*": Scaling(1, 0, None, "manual")}


def test_a_deployment_that_names_no_queue_counts_for_none() -> None:
    assert weigh([workers(queues=())], []) == {}


def test_selectors() -> None:
    known = settings.load({"CALLBOARD_CLUSTER_SELECTOR": "callboard.dev/worker-set,app=x"})
    assert known.cluster_selector == "callboard.dev/worker-set,app=x"
    with pytest.raises(InvalidSetting, match="CALLBOARD_CLUSTER_SELECTOR"):
        settings.load({"CALLBOARD_CLUSTER_SELECTOR": "a in (b)"})


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[KubeServer]:
    with kube_server(tmp_path) as server:
        server.objects["deployments"] = listed(
            {
                "metadata": {"name": "w-mail", "annotations": {"callboard.dev/queues": "mail"}},
                "spec": {"selector": {"matchLabels": OWN}, "template": {}, "replicas": 3},
                "status": {"readyReplicas": 3},
            }
        )
        server.objects["horizontalpodautoscalers"] = listed()
        yield server


MAIL = {"mail": Scaling(3, 3, None, "manual")}


async def test_they_are_read_when_asked_for_and_kept(server: KubeServer) -> None:
    scales = Scales(server.kube(), "set")
    assert server.asked == []
    assert await scales.scalings() == MAIL
    assert await scales.scalings() == MAIL
    assert server.asked == ["GET deployments", "GET horizontalpodautoscalers"]
    await scales.close()


async def test_what_is_a_little_old_is_shown_while_it_is_read_anew(server: KubeServer) -> None:
    scales = Scales(server.kube(), "set", fresh_seconds=0.0)
    assert await scales.scalings() == MAIL
    server.objects["deployments"]["items"][0]["status"]["readyReplicas"] = 2
    server.objects["pods"] = listed()
    server.gate.clear()
    assert await scales.scalings() == MAIL, "it does not wait for the second answer"
    server.gate.set()

    await wait_until_async(lambda: scales._reading is None, description="the end of the reading")
    assert (await scales.scalings())["mail"].ready == 2
    assert "GET pods" in server.asked, "why they are not ready"
    await scales.close()


@pytest.mark.parametrize("status", [403, 503])
async def test_what_cannot_be_read_is_left_out_and_said_once(
    server: KubeServer, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.status = status
    scales = Scales(server.kube(), "set")
    with caplog.at_level(logging.INFO, "callboard.cluster"):
        assert await scales.scalings() == {}
        assert await scales.scalings() == {}
    assert len(server.asked) == 1, "it is left alone for a while"
    [said] = caplog.messages
    assert "left out" in said
    await scales.close()


async def test_nobody_waits_long_for_an_api_server_that_hangs(
    server: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callboard.cluster.scales.WAIT_SECONDS", 0.05)
    server.gate.clear()
    scales = Scales(server.kube(timeout_seconds=0.5), "set")
    assert await scales.scalings() == {}
    server.gate.set()
    await wait_until_async(lambda: scales._reading is None, description="the end of the reading")
    assert await scales.scalings() == MAIL
    await scales.close()


async def test_without_pods_the_rest_is_told(server: KubeServer, caplog: pytest.LogCaptureFixture) -> None:
    server.objects["deployments"]["items"][0]["status"]["readyReplicas"] = 1
    scales = Scales(server.kube(), "set")
    answer = server.answer

    def without_pods(method: str, path: str, authorization: str, body: object) -> tuple[int, object]:
        if "/pods" in path:
            return 403, {"kind": "Status", "code": 403, "message": "pods is forbidden"}
        return answer(method, path, authorization, body)

    server.answer = without_pods  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO, "callboard.cluster"):
        assert await scales.scalings() == {"mail": Scaling(3, 1, None, "manual")}
    assert "not explained" in caplog.text
    await scales.close()
