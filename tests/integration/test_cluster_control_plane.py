"""What we tell and ask a real control plane: API server, controllers, scheduler, and the Roles of the docs.

There is no kubelet here: the tests play it, and start workers themselves. That pods run, scale and drain is
proven in tests/cluster.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from callboard.cluster.faults import ClusterForbids
from callboard.cluster.herald import DELETION_COST, PROTECTION
from callboard.cluster.kube import Kube
from callboard.cluster.scales import Scales
from callboard.inspector.scaling import Scaling
from callboard.records.state import State
from tests.cluster.chart.helm import Helm
from tests.cluster.lab.components import Components
from tests.cluster.lab.control_plane import ControlPlane
from tests.cluster.lab.tools import ToolsMissing, find_tools
from tests.support.api_server import RunningApi
from tests.support.board import Board
from tests.support.waiting import wait_until
from tests.support.worker_process import ServiceProcess
from tests.support.workers import working

pytestmark = [pytest.mark.proof, pytest.mark.timeout(240)]

ROLES = Path(__file__).parents[2] / "docs/kubernetes/rbac.md"
NAMESPACE = "acme"
SELECTOR = "callboard.dev/worker-set,app.kubernetes.io/instance=acme"


class OnLoopback(Components):
    """There the API server may not publish its own address, which nobody here looks up."""

    def add(
        self, name: str, program: Path, *arguments: str, flags: Mapping[str, object] | None = None
    ) -> None:
        more = {"endpoint-reconciler-type": "none"} if name == "kube-apiserver" else {}
        super().add(name, program, *arguments, flags={**(flags or {}), **more})


class Plane:
    """The control plane, with kubectl."""

    def __init__(self, control_plane: ControlPlane, components: Components, kubectl: list[str]) -> None:
        self.control_plane, self.components, self._kubectl = control_plane, components, kubectl

    def run(self, *words: str, given: object = None) -> str:
        """What kubectl says; `given` goes in as a manifest."""
        text = None if given is None else given if isinstance(given, str) else json.dumps(given)
        done = subprocess.run(
            [*self._kubectl, "-n", NAMESPACE, *words], input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def apply(self, *objects: Mapping[str, Any]) -> None:
        self.run("apply", "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": objects})

    def pod(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("get", "pod", name, "-o", "json"))
        return found

    def annotations(self, name: str) -> dict[str, str]:
        return dict(self.pod(name)["metadata"].get("annotations", {}))

    def cost(self, name: str) -> str | None:
        return self.annotations(name).get(DELETION_COST)

    def pods_of(self, worker_set: str, count: int) -> list[str]:
        """The names of a worker set's pods, when there are so many."""
        found = self.run("get", "pods", "-l", f"callboard.dev/worker-set={worker_set}", "-o", "name").split()
        return [name.removeprefix("pod/") for name in found] if len(found) == count else []

    def make_pod(self, name: str) -> str:
        """A pod that runs on our node, as far as the API server knows."""
        container = {"name": "worker", "image": "callboard-worker"}
        spec = {"nodeName": "n1", "serviceAccountName": "worker", "containers": [container]}
        metadata = {"name": name, "labels": {"app": "w"}}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        return name

    def set_status(self, name: str, status: Mapping[str, Any]) -> None:
        patch = json.dumps({"status": status})
        self.run("patch", "pod", name, "--subresource=status", "--type=merge", "-p", patch)

    def evict(self, name: str) -> None:
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
        self.run("create", "--raw", path, "-f", "-", given=eviction)

    def account(self, name: str, folder: Path) -> Path:
        """The files that the kubelet would mount for this service account."""
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text(self.run("create", "token", name).strip(), encoding="utf-8")
        (folder / "namespace").write_text(NAMESPACE, encoding="utf-8")
        (folder / "ca.crt").write_bytes((self.control_plane.certificates / "ca.crt").read_bytes())
        return folder

    def kube(self, name: str, folder: Path) -> Kube:
        """What speaks for a service account."""
        account = self.account(name, folder)
        return Kube(self.control_plane.server, NAMESPACE, account / "token", account / "ca.crt")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    tools = find_tools()
    try:
        kube = tools.program("kube")
        tools.program("etcd")
    except ToolsMissing as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp("plane")
    components = OnLoopback(folder / "logs")
    control_plane = ControlPlane(tools, folder / "state", components, "127.0.0.1")
    try:
        control_plane.boot()
        kubectl = [str(kube), "kubectl", f"--kubeconfig={control_plane.kubeconfig('admin')}"]
        made = Plane(control_plane, components, kubectl)
        _prepare(made)
        yield made
    finally:
        components.stop_all()


def _prepare(plane: Plane) -> None:
    """A namespace, the Roles as the docs give them, and a node that takes no pod by itself."""
    plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    plane.run("apply", "-f", "-", given=_roles())
    for name in ("worker", "scheduler", "api"):
        plane.run("create", "serviceaccount", name)
        role, subject = f"--role=callboard-{name}", f"--serviceaccount={NAMESPACE}:{name}"
        plane.run("create", "rolebinding", f"callboard-{name}", role, subject)
    taint = {"key": "no", "effect": "NoSchedule"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {"taints": [taint]}}
    plane.apply(node)
    wait_until(lambda: plane.run("get", "serviceaccount", "-o", "name").count("default") == 1, 30, "default")


def _roles() -> str:
    [block] = re.findall(r"```yaml\n(.*?kind: Role\n.*?)```", ROLES.read_text(encoding="utf-8"), re.DOTALL)
    return block


@contextmanager
def pod_of(
    plane: Plane, name: str, redis_url: str, folder: Path, **settings: object
) -> Iterator[tuple[ServiceProcess, Board]]:
    """A worker that is the process of a pod."""
    plane.make_pod(name)
    account = plane.account("worker", folder / f"{name}-account")
    chosen = {"CLUSTER_ACCOUNT_DIR": account, "CLUSTER_POD": name, "WORKER_LEASE_SECONDS": 1, **settings}
    with working(redis_url, folder, **chosen) as (worker, board):
        yield worker, board


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
            await _pause()
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
    plane.run("scale", "deployment/mail", "--replicas=3")
    await becomes("mail", Scaling(3, 0, 7, "quota"))
    plane.run("delete", "quota", "few")
    plane.run("rollout", "pause", "deployment/mail")
    await becomes("mail", Scaling(3, 0, 7, "paused"))
    plane.run("delete", "deployment,hpa", "--all")
    await becomes("mail", None)  # type: ignore[arg-type]
    await scales.close()


async def _pause() -> None:
    import asyncio

    await asyncio.sleep(0.25)


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
    page = {role["metadata"]["name"]: _rights(role) for role in yaml.safe_load_all(_roles())}
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
