"""What we tell and ask a real control plane: API server, controllers, scheduler, and the Roles of the docs.

There is no kubelet here: the tests play it, and start workers themselves. That pods run, scale and drain is
proven in tests/cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from callboard.cluster.faults import ClusterForbids
from callboard.cluster.herald import PROTECTION
from callboard.cluster.scales import Scales
from callboard.inspector.scaling import Scaling
from callboard.records.state import State
from tests.cluster.chart.helm import Helm
from tests.cluster.lab.tools import ToolsMissing, find_tools
from tests.support.api_server import RunningApi
from tests.support.board import Board
from tests.support.loopback_plane import Plane, loopback_plane, pod_of, roles_of_the_docs
from tests.support.waiting import wait_until
from tests.support.worker_process import ServiceProcess
from tests.support.workers import working

pytestmark = [pytest.mark.proof, pytest.mark.timeout(240)]

SELECTOR = "callboard.dev/worker-set,app.kubernetes.io/instance=acme"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with ExitStack() as stack:
        try:
            made = stack.enter_context(loopback_plane(tmp_path_factory.mktemp("plane")))
        except ToolsMissing as missing:
            pytest.skip(str(missing))
        yield made


@pytest.fixture(autouse=True)
def _in_the_cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "plane" in request.fixturenames:
        port = request.getfixturevalue("plane").control_plane.port
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))


def test_a_worker_tells_what_it_has_in_hand(plane: Plane, redis_url: str, tmp_path: Path) -> None:
    with pod_of(plane, "w-cost", redis_url, tmp_path, CLUSTER_PROTECT_SECONDS=2) as (worker, board):
        wait_until(lambda: plane.cost("w-cost") == "0", 20, "idle")
        tasks = board.submit("box.nap", payload={"seconds": 25})
        wait_until(lambda: plane.cost("w-cost") == "10", 25, "busy", poll=0.2)
        wait_until(
            lambda: PROTECTION.items() <= plane.annotations("w-cost").items(), 25, "protection", poll=0.2
        )
        board.await_end(tasks)
        wait_until(lambda: plane.cost("w-cost") == "0", 25, "idle again", poll=0.2)
        assert not PROTECTION.keys() & plane.annotations("w-cost").keys()
        assert "This is pod w-cost of namespace acme" in worker.said


def test_an_api_server_that_is_away_changes_nothing_for_tasks(
    plane: Plane, redis_url: str, tmp_path: Path
) -> None:
    with pod_of(plane, "w-alone", redis_url, tmp_path) as (worker, board):
        wait_until(lambda: plane.cost("w-alone") == "0", 20, "idle")
        plane.components.stop("kube-apiserver")
        try:
            long = board.submit("box.nap", payload={"seconds": 15})
            quick = board.submit("box.tell", 50)
            assert {record.state for record in board.await_end(quick)} == {State.COMPLETED}
            wait_until(lambda: "tells it later" in worker.said, 30, "its word on that")
            [record] = board.await_end(long)
            assert (record.state, record.attempt, record.interruptions) == (State.COMPLETED, 1, ())
            assert worker.get("/livez") == worker.get("/readyz") == 200
        finally:
            plane.components.start("kube-apiserver")
            plane.control_plane.wait_for_the_api_server(60)
        assert plane.cost("w-alone") in ("0", "10")


def test_without_the_permission_a_worker_says_so_once(plane: Plane, redis_url: str, tmp_path: Path) -> None:
    plane.make_pod("w-bare")
    account = plane.account("default", tmp_path / "account")
    with working(redis_url, tmp_path, CLUSTER_ACCOUNT_DIR=account, CLUSTER_POD="w-bare") as (worker, board):
        wait_until(lambda: "`patch` on pods" in worker.said, 20, "its word")
        assert {record.state for record in board.await_end(board.submit("box.tell", 5))} == {State.COMPLETED}
        assert worker.said.count("forbidden") == 1
        assert plane.cost("w-bare") is None


def test_an_eviction_is_told_in_the_interruption(plane: Plane, redis_url: str, tmp_path: Path) -> None:
    with pod_of(plane, "w-evicted", redis_url, tmp_path, WORKER_DRAIN_SECONDS=2) as (worker, board):
        [task] = board.submit("box.nap", payload={"seconds": 60}, max_attempts=1)
        board.await_state([task], State.RUNNING)
        plane.evict("w-evicted")
        worker.term()
        assert worker.wait(30) == 0, worker.said
        record = board.record(task)
        assert (record.state, record.attempts) == (State.QUEUED, ())
        [stop] = record.interruptions
        assert stop.cause.startswith("shutdown: its pod was evicted (EvictionByEvictionAPI")


def _oom(plane: Plane, name: str) -> None:
    """As a kubelet reports it, which has started the container again."""
    ended = {
        "exitCode": 137,
        "reason": "OOMKilled",
        "startedAt": "2020-01-01T00:00:00Z",
        "finishedAt": "2100-01-01T00:00:00Z",
    }
    container = {"name": "worker", "image": "i", "imageID": "", "ready": False, "restartCount": 1}
    plane.set_status(
        name,
        {
            "phase": "Running",
            "containerStatuses": [{**container, "state": {}, "lastState": {"terminated": ended}}],
        },
    )


def _delete(plane: Plane, name: str) -> None:
    plane.run("delete", "pod", name, "--force", "--grace-period=0")


@pytest.mark.parametrize(
    ("name", "happens", "attempts", "cause"),
    [
        ("evicted", Plane.evict, [None], "its pod was evicted (EvictionByEvictionAPI"),
        ("deleted", _delete, [None], "its pod was deleted"),
        ("oom", _oom, ["lost", None], "its container was OOMKilled"),
        ("vanished", lambda plane, name: None, ["lost", None], "its node may be lost"),
    ],
)
def test_whose_doing_a_kill_was(
    plane: Plane,
    redis_url: str,
    tmp_path: Path,
    name: str,
    happens: Callable[[Plane, str], None],
    attempts: list[str | None],
    cause: str,
) -> None:
    """The worker has no time for a word; another one asks the API server when the leases have run out."""
    with pod_of(plane, f"w-{name}", redis_url, tmp_path) as (worker, board):
        [task] = board.submit("box.nap", payload={"seconds": 120})
        board.await_state([task], State.RUNNING)
        happens(plane, f"w-{name}")
        worker.kill()
        other = ServiceProcess(
            "callboard_worker",
            tmp_path / "other.log",
            redis_url,
            board.keys.namespace,
            MODULES=Path(__file__).parents[1] / "support/worker_bodies.py",
            CLUSTER_ACCOUNT_DIR=plane.account("worker", tmp_path / "other"),
            CLUSTER_POD=plane.make_pod(f"w-{name}-2"),
            WORKER_LEASE_SECONDS=1,
        )
        try:
            other.ready()
            wait_until(lambda: board.record(task).worker == other.id, 40, "the second run")
            record = board.record(task)
            assert [attempt.outcome for attempt in record.attempts] == attempts
            first = record.attempts[0].error
            told = first["message"] if first else record.interruptions[0].cause
            assert cause in told
            assert (len(record.interruptions) == 0) == (attempts[0] == "lost")
        finally:
            other.close()


def _workers(name: str, queues: str, replicas: int) -> dict[str, Any]:
    labels = {"callboard.dev/worker-set": name, "app.kubernetes.io/instance": "acme"}
    container = {"name": "worker", "image": "callboard-worker"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels, "annotations": {"callboard.dev/queues": queues}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def _autoscaler(target: str) -> dict[str, Any]:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}
    metric = {"name": "callboard_queue_demand_slots", "selector": {"matchLabels": {"queue": "mail"}}}
    external = {"metric": metric, "target": {"type": "AverageValue", "averageValue": "2"}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": target},
        "spec": {
            "scaleTargetRef": reference,
            "minReplicas": 1,
            "maxReplicas": 7,
            "metrics": [{"type": "External", "external": external}],
        },
    }


async def test_how_queues_scale_and_what_limits_them(plane: Plane, tmp_path: Path) -> None:
    """Real controllers make the pods, refuse them, and find no metric."""
    plane.apply(_workers("mail", "mail,reports", 2), _autoscaler("mail"), _workers("rest", "*", 0))
    scales = Scales(plane.kube("api", tmp_path / "api"), SELECTOR, fresh_seconds=0.2)

    async def becomes(queue: str, expected: Scaling) -> None:
        found: list[Scaling | None] = [None]
        for _ in range(120):
            found[0] = (await scales.scalings()).get(queue)
            if found[0] == expected:
                return
            await asyncio.sleep(0.25)  # between two looks
        raise AssertionError(f"{queue}: {found[0]}, not {expected}")

    rest = Scaling(0, 0, None, "manual")
    await becomes("*", rest)
    await becomes("reports", Scaling(2, 0, None, "unschedulable"))
    plane.run("delete", "deployment", "rest")
    await becomes("reports", Scaling(2, 0, 7, "unschedulable"))
    plane.run("scale", "deployment/mail", "--replicas=1")
    await becomes("mail", Scaling(1, 0, 7, "unschedulable"))
    [pod] = wait_until(lambda: plane.pods_of("mail", 1), 20, "one pod")
    plane.set_status(pod, {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
    await becomes("mail", Scaling(1, 1, 7, "metric"))
    plane.run("scale", "deployment/mail", "--replicas=0")
    await becomes("mail", Scaling(0, 0, 7, "paused"))
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}}
    plane.apply({**quota, "spec": {"hard": {"count/pods": "0"}}})
    try:
        # It is in force once its controller has counted and the API server has heard of that.
        wait_until(lambda: "exceeded quota: few" in plane.objection(), 60, "the quota", poll=0.2)
        plane.run("scale", "deployment/mail", "--replicas=3")
        await becomes("mail", Scaling(3, 0, 7, "quota"))
    finally:
        plane.run("delete", "quota", "few")
    plane.run("rollout", "pause", "deployment/mail")
    await becomes("mail", Scaling(3, 0, 7, "paused"))
    plane.run("delete", "deployment,hpa", "--all")
    await becomes("mail", None)  # type: ignore[arg-type]
    await scales.close()


def test_the_api_shows_it(plane: Plane, redis_url: str, tmp_path: Path) -> None:
    plane.apply(_workers("shown", "shown", 1))
    account = plane.account("api", tmp_path / "account")
    options = {"CLUSTER_ACCOUNT_DIR": str(account), "CLUSTER_SELECTOR": SELECTOR, "CLUSTER_POD": "api-1"}
    api = RunningApi(redis_url, "shown", **options).start()
    try:
        Board(api.connection).submit("shown.task")

        def shown() -> Any:
            return api.http.get("/v1/queues/shown").json()["scaling"]

        expected = {"desired": 1, "ready": 0, "max": None, "limited_by": "unschedulable"}
        wait_until(lambda: shown() == expected, 30, "scaling", poll=0.5)
        assert {queue["name"]: queue["scaling"] for queue in api.http.get("/v1/queues").json()["items"]}[
            "shown"
        ] == expected
    finally:
        api.stop()
        plane.run("delete", "deployment", "shown")


def test_the_chart_grants_what_the_page_says() -> None:
    try:
        helm = Helm(find_tools().program("helm4"))
    except ToolsMissing as missing:
        pytest.skip(str(missing))
    chart = {role["metadata"]["name"]: _rights(role) for role in helm.render().all("Role")}
    page = {role["metadata"]["name"]: _rights(role) for role in yaml.safe_load_all(roles_of_the_docs())}
    assert chart == page


def _rights(role: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_roles_give_what_is_used_and_no_more(plane: Plane, tmp_path: Path) -> None:
    plane.make_pod("w-other")
    scheduler, api, worker = (plane.kube(name, tmp_path / name) for name in ("scheduler", "api", "worker"))
    assert scheduler.pod("w-other")
    assert worker.pod("w-other")
    with pytest.raises(ClusterForbids, match=r"patch pods.*403"):
        scheduler.annotate("w-other", {"a": "b"})
    with pytest.raises(ClusterForbids):
        worker.deployments("a")
    with pytest.raises(ClusterForbids):
        api.pod("w-other")
    for kube in (scheduler, api, worker):
        kube.close()
