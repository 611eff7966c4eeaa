"""One cluster for all proofs of a run, and namespaces for each of them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.release import Release
from tests.cluster.lab.tools import ToolsMissing, tools_for_a_cluster
from tests.support.ledger import Ledger


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane, two nodes, Prometheus and its adapter, booted for this run."""
    try:
        tools = tools_for_a_cluster()
    except ToolsMissing as missing:
        pytest.skip(str(missing))
    cluster = Cluster(tools, tmp_path_factory.mktemp("cluster"))
    print(f"\nThe cluster's logs: {cluster.folder}")
    try:
        cluster.boot()
        yield cluster
    finally:
        cluster.shut_down()


@pytest.fixture(scope="session")
def ledger(cluster: Cluster) -> Ledger:
    """What the bodies of naps have done, in whatever namespace."""
    return Ledger(cluster.ledger / "bodies")


@pytest.fixture(scope="module")
def new_release(cluster: Cluster) -> Iterator[Callable[..., Release]]:
    """`new_release(namespace, version="helm4")`: not yet installed, in a namespace that goes at the end."""
    made: list[Release] = []

    def make(namespace: str, version: str = "helm4") -> Release:
        cluster.create_namespace(namespace)
        made.append(Release(cluster, namespace, version))
        return made[-1]

    yield make
    for release in made:
        # Not waited for: pods drain while the next proof begins.
        cluster.kubectl("delete", "namespace", release.namespace, "--wait=false")


@pytest.fixture(autouse=True)
def _components_live(request: pytest.FixtureRequest) -> Iterator[None]:
    """A component that died by itself fails the test that it died in, with the end of its log."""
    yield
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").components.complain_about_the_dead()


@pytest.fixture(scope="session")
def previous_chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart before its last change, if this clone knows it; a release, until there is one."""
    return _chart_before_the_last_change(tmp_path_factory.mktemp("previous"))


def _chart_before_the_last_change(folder: Path) -> Path:
    path = "deploy/helm/callboard"
    commits = _git("rev-list", "--max-count=2", "HEAD", "--", path).split()
    if len(commits) < 2:
        # A clone without history: the upgrade is to the same chart, and as much under load.
        shutil.copytree(Path(__file__).parents[2] / path, folder / path)
        return folder / path
    archive = folder / "chart.tar"
    _git("archive", f"--output={archive}", commits[1], path)
    subprocess.run(["tar", "-xf", str(archive), "-C", str(folder)], check=True)
    return folder / path


def _git(*arguments: str) -> str:
    root = Path(__file__).parents[2]
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout
