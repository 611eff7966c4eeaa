"""Whose doing a worker's end was: the table of what a pod's status says, and who is asked when."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard import clock
from callboard.catalog.origin import Origin
from callboard.cluster.coroner import Coroner, judge, taken_away
from callboard.cluster.facts import Container, Pod, Termination
from callboard.cluster.place import Place
from callboard.maintenance.fate import Fate, by_note
from tests.support.kube_server import NAMESPACE, KubeServer, kube_server, pod
from tests.support.waiting import wait_until

SINCE = 1795341610000  # ten seconds after the pod was made
CREATED = 1795341600000
HERE = Origin(since=SINCE, cluster="c1", namespace=NAMESPACE, pod="w-1")
DRAINING = Origin(since=SINCE, cluster="c1", namespace=NAMESPACE, pod="w-1", draining=SINCE + 90_000)
WARNED = Origin(
    since=SINCE, cluster="c1", namespace=NAMESPACE, pod="w-1", draining=1, reason="its pod was preempted"
)


def ended(reason: str, code: int, *, container: str = "worker", begun: int = SINCE - 2_000) -> Container:
    return Container(container, (Termination(reason, code, begun, SINCE + 60_000),))


def looks(*containers: Container, **fields: str | bool | int) -> Pod:
    return Pod("w-1", **{"created": CREATED, **fields}, containers=containers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("origin", "found", "costs", "cause"),
    [
        # Taken away by somebody.
        (HERE, None, "nothing", "its pod was deleted"),
        (WARNED, None, "nothing", "its pod was preempted"),
        (HERE, looks(deleted=True), "nothing", "its pod was deleted"),
        (HERE, looks(created=SINCE + 61_000), "nothing", "its pod was deleted"),
        (HERE, looks(disruption="EvictionByEvictionAPI"), "nothing", "EvictionByEvictionAPI"),
        (HERE, looks(disruption="PreemptionByScheduler"), "nothing", "PreemptionByScheduler"),
        (HERE, looks(disruption="DeletionByTaintManager"), "nothing", "DeletionByTaintManager"),
        (
            HERE,
            looks(phase="Failed", reason="Terminated", message="node shutdown."),
            "nothing",
            "node shutdown)",
        ),
        (HERE, looks(ended("Error", 137), deleted=True), "nothing", "its pod was deleted"),
        (DRAINING, looks(), "nothing", "it was killed while it drained"),
        # Its own doing, or its task's.
        (HERE, looks(ended("OOMKilled", 137)), "strike", "OOMKilled"),
        (DRAINING, looks(ended("OOMKilled", 137), deleted=True), "strike", "OOMKilled"),
        (HERE, looks(ended("Error", 139)), "strike", "exit code 139 (Error)"),
        (HERE, looks(), "strike", "its node may be lost"),
        # Perhaps.
        (HERE, looks(reason="Evicted", disruption="TerminationByKubelet"), "attempt", "no reason given"),
        (HERE, looks(reason="Evicted", message="low on memory."), "attempt", "the kubelet: low on memory"),
        (DRAINING, looks(ended("Error", 137)), "attempt", "exit code 137 (Error) while it drained"),
        # The end of another container, or of an earlier run of this one, tells nothing.
        (HERE, looks(Container("worker"), ended("OOMKilled", 137, container="sidecar")), "strike", "node"),
        (HERE, looks(ended("OOMKilled", 137, begun=SINCE + 20_000)), "strike", "its node"),
        (HERE, looks(ended("OOMKilled", 137, container="mine")), "strike", "OOMKilled"),
    ],
)
def test_the_fate_of_a_worker(origin: Origin, found: Pod | None, costs: str, cause: str) -> None:
    fate = judge(origin, found)
    assert fate.costs == costs
    assert cause in fate.cause
    assert bool(cause) == bool(fate.cause)


def test_a_pod_that_stays_is_not_taken_away() -> None:
    assert taken_away(looks()) == ""
    assert taken_away(looks(ended("Error", 1), phase="Running")) == ""


def test_a_long_message_is_cut() -> None:
    assert len(taken_away(looks(reason="Evicted", message="x" * 5000))) < 300


def test_the_note_alone_knows_who_was_told_to_stop() -> None:
    assert by_note("w", None) == Fate()
    assert by_note("w", HERE) == Fate()
    assert by_note("w", DRAINING) == Fate("it was killed while it drained", "nothing")
    assert by_note("w", WARNED) == Fate("its pod was preempted", "nothing")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KubeServer]:
    with kube_server(tmp_path) as server:
        yield server


def coroner(server: KubeServer, **options: float) -> Coroner:
    place = Place(server.url, "c1", NAMESPACE, "w-9", server.token, server.token)
    return Coroner(server.kube(), place, **options)


def verdict(asked: Coroner, worker: str, origin: Origin | None) -> Fate:
    """The fate, once it is known."""
    found = wait_until(lambda: asked(worker, origin), description="a fate")
    assert found is not None
    return found


def test_it_asks_once_and_does_not_block(server: KubeServer) -> None:
    server.objects["pods/w-1"] = pod("w-1", deletionTimestamp="2026-11-22T10:01:00Z")
    server.gate.clear()
    asked = coroner(server)
    assert asked("w-1-abc", HERE) is None
    assert asked("w-1-abc", HERE) is None
    server.gate.set()
    assert verdict(asked, "w-1-abc", HERE) == Fate("its pod was deleted", "nothing")
    assert asked("w-1-abc", HERE) == Fate("its pod was deleted", "nothing")
    assert server.asked == ["GET pods/w-1"]


def test_a_worker_that_lived_elsewhere_is_not_looked_for(server: KubeServer) -> None:
    """Here there is no pod of its name, and that would read as deleted."""
    asked = coroner(server)
    for origin in (
        None,
        Origin(since=SINCE),
        Origin(since=SINCE, cluster="c2", namespace=NAMESPACE, pod="w-1"),
        Origin(since=SINCE, cluster="c1", namespace="other", pod="w-1"),
    ):
        assert asked("w-1-abc", origin) == Fate()
    assert server.asked == []


def test_an_api_server_that_hangs_is_not_waited_for(server: KubeServer) -> None:
    server.gate.clear()
    asked = coroner(server, patience_seconds=0.1)
    assert asked("w-1-abc", DRAINING) is None
    assert verdict(asked, "w-1-abc", DRAINING).costs == "nothing"
    assert asked("w-2-abc", HERE) is None
    assert verdict(asked, "w-2-abc", HERE) == Fate()


def test_it_asks_again_when_an_api_server_restarts(server: KubeServer) -> None:
    server.objects["pods/w-1"] = pod("w-1", deletionTimestamp="2026-11-22T10:01:00Z")
    server.status = 503
    asked = coroner(server)
    assert asked("w-1-abc", HERE) is None
    wait_until(lambda: server.asked, description="the first try")
    server.status = 0
    assert verdict(asked, "w-1-abc", HERE).cause == "its pod was deleted"
    assert len(server.asked) >= 2


def test_without_the_permission_it_says_so_once(server: KubeServer, caplog: pytest.LogCaptureFixture) -> None:
    server.status = 403
    asked = coroner(server, patience_seconds=1.5)
    with caplog.at_level(logging.WARNING, "callboard.cluster"):
        assert verdict(asked, "w-1-abc", HERE) == Fate()
        wait_until(lambda: caplog.messages, description="its word")
        before = len(server.asked)
        assert verdict(asked, "w-1-def", DRAINING).costs == "nothing"
    [said] = caplog.messages
    assert "`get` on pods" in said
    assert len(server.asked) == before + 1, "what is known is not waited for"


def test_it_says_so_on_a_machine_that_is_slow_to_wake_it(
    server: KubeServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.status = 403
    sleep = clock.sleep
    monkeypatch.setattr(clock, "sleep", lambda seconds: sleep(seconds + 1))
    with caplog.at_level(logging.WARNING, "callboard.cluster"):
        assert verdict(coroner(server, patience_seconds=1), "w-1-abc", HERE) == Fate()
        wait_until(lambda: caplog.messages, description="its word")


def test_one_refusal_is_not_believed(server: KubeServer, caplog: pytest.LogCaptureFixture) -> None:
    """An API server that starts knows no Roles for a moment; a task must not be struck for that."""
    server.objects["pods/w-1"] = pod("w-1", deletionTimestamp="2026-11-22T10:01:00Z")
    server.status = 403
    asked = coroner(server)
    with caplog.at_level(logging.INFO, "callboard.cluster"):
        assert asked("w-1-abc", HERE) is None
        wait_until(lambda: server.asked, description="the refusal")
        server.status = 0
        assert verdict(asked, "w-1-abc", HERE).cause == "its pod was deleted"
    assert caplog.messages == []


def test_an_answer_that_makes_no_sense_holds_nothing_up(server: KubeServer) -> None:
    server.objects["pods/w-1"] = {"metadata": None}
    assert verdict(coroner(server), "w-1-abc", HERE) == Fate()
