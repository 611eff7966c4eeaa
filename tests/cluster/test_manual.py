"""docs/kubernetes on a real control plane: a reader types the pages, from top to bottom.

One bash for each page, in a folder with the page's files and the repository beside them. What the pages mark
as `# not run` is left out.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest
import yaml

from tests.cluster.lab.cluster import HELMS, Cluster, CommandFailed
from tests.cluster.lab.images import OWN_IMAGE
from tests.cluster.lab.release import NAME, Release
from tests.cluster.lab.tools import ROOT
from tests.docs import manual
from tests.docs.page import rows
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(400)

#: The reader's image; the lab has another one with tasks of a user's own.
OWN = "repository: acme-worker"
#: The namespaces that a page makes.
NAMESPACES = {
    "install": ("callboard", "production"),
    "add-your-tasks": ("acme",),
    "autoscaling": ("elastic",),
    "upgrades": ("upgrades",),
    "sizing": (),
    "backup-restore": ("restore",),
    "multi-tenant": ("blue", "green"),
    # It looks at what the page on installing has made.
    "troubleshooting": ("callboard",),
}

Reader = Callable[[str], str]


@pytest.fixture(scope="module")
def programs(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with kubectl and Helm 4."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "kubectl").symlink_to(cluster.tools.program("kube"))
    (folder / "helm").symlink_to(cluster.tools.program("helm4"))
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def reader(cluster: Cluster, programs: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """`reader(page)` types all of a page's commands; what they printed."""
    made: list[str] = []

    def clear(namespaces: list[str], waiting: str) -> None:
        if namespaces:
            cluster.kubectl("delete", "namespace", *namespaces, "--ignore-not-found", waiting)

    def read(page: str) -> str:
        made.extend(NAMESPACES[page])
        # Another proof may have left one of the name, on its way out.
        clear(made, "--timeout=120s")
        folder = tmp_path_factory.mktemp(page)
        for room in ("deploy", "examples", "k8s"):
            (folder / room).symlink_to(ROOT / room)
        for name, text in manual.files(page).items():
            (folder / name).write_text(text.replace(OWN, f"repository: {OWN_IMAGE}"), encoding="utf-8")
        if page == "troubleshooting":
            cluster.create_namespace("callboard")
            Release(cluster, "callboard").install()
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", patient("\n".join(manual.run_in_a_cluster(page)))],
            cwd=folder,
            env={**os.environ, "PATH": programs, "KUBECONFIG": str(cluster.kubeconfig)},
            capture_output=True,
            text=True,
            timeout=360,
            check=False,
        )
        assert done.returncode == 0, f"{page}.md\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    yield read
    # Not waited for: pods drain while the next page is read.
    clear(made, "--wait=false")


def patient(script: str) -> str:
    """With every look at the metrics API repeated until it shows a queue: the page says, within a minute."""
    return re.sub(
        r"^(kubectl get --raw .*)$",
        r"""for _ in $(seq 60); do \1 | grep '"queue"' && break || sleep 1; done; \1 | grep '"queue"'""",
        script,
        flags=re.MULTILINE,
    )


def test_every_page_with_commands_is_read() -> None:
    assert [page for page in manual.MANUAL if manual.run_in_a_cluster(page)] == [
        page for page in manual.MANUAL if page in NAMESPACES
    ]


@pytest.mark.parametrize("page", sorted(NAMESPACES.keys() - {"add-your-tasks"}))
def test_the_commands_of_a_page_work(reader: Reader, page: str) -> None:
    assert reader(page)


def test_the_tasks_of_a_reader_can_be_submitted(reader: Reader, cluster: Cluster) -> None:
    reader("add-your-tasks")
    release = Release(cluster, "acme")
    release.rolled_out("worker-naps")
    with release.client() as client:
        task = client.submit("nap", {"seconds": 0.1})
        wait_until(lambda: client.task(task.id).state == "completed", 60, "the task ends", poll=0.2)


# --- the table of upgrades.md


@pytest.fixture(scope="module", params=HELMS)
def bare(request: pytest.FixtureRequest, new_release: Callable[..., Release]) -> Release:
    """A release that is never installed as a whole: its pods wait for a Secret, and cost nothing."""
    return new_release(f"owners-{request.param}", request.param)


BARE = {"valkey": {"enabled": False}, "redis": {"existingSecret": "none"}, "scheduler": {"enabled": False}}


def table() -> list[list[str]]:
    section = manual.MANUAL["upgrades"].section("`replicas`, and who owns them")
    return [row for row in rows(section) if row[0] != "you had"]


@pytest.mark.parametrize("row", table(), ids=lambda row: f"{row[0]}, {row[1]}".replace("`", ""))
def test_what_the_helms_do_with_replicas(bare: Release, row: list[str]) -> None:
    had, then, *outcomes = row
    wanted = outcomes[HELMS.index(bare.version)]
    first = int(found[1]) if (found := re.fullmatch(r"`replicas: (\d+)`", had)) else None
    again = first if "without" not in then else None
    put(bare, "install", first)
    try:
        if scaled := re.search(r"`kubectl scale` to (\d+)", then):
            bare.kubectl("scale", f"deployment/{NAME}-worker-default", f"--replicas={scaled[1]}")
        if wanted.startswith("fails"):
            [words] = re.findall(r"`(.+)`", wanted)
            with pytest.raises(CommandFailed, match=re.escape(words)):
                put(bare, "upgrade", again)
            put(bare, "upgrade", again, "--force-conflicts")
            assert replicas(bare) == first
        else:
            put(bare, "upgrade", again)
            assert replicas(bare) == int(wanted.split()[-1])
    finally:
        bare.helm("uninstall", NAME)


def put(release: Release, command: str, count: int | None, *more: str) -> None:
    file = release.cluster.folder / f"values-{release.namespace}.yaml"
    set_of = {} if count is None else {"default": {"replicas": count}}
    file.write_text(yaml.safe_dump(BARE | {"workers": set_of}), encoding="utf-8")
    reset = ["--reset-values"] if command == "upgrade" else []
    release.helm(command, NAME, str(ROOT / manual.CHART), f"--values={file}", *reset, *more)


def replicas(release: Release) -> int:
    return release.replicas("worker-default")[0]
