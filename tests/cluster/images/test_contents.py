"""What is in the images, and what is not."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from callboard import __version__
from tests.cluster.images.containers import IMAGES, ROOT, in_image, inspect, podman
from tests.cluster.images.installed import installed, locked

PARTS = sorted(IMAGES)
TOOLS = ("gcc", "cc", "g++", "make", "git", "hatchling", "uv", "buildah")
_SYSTEM_FOLDERS = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin")
#: Uncompressed, with the base: enough room for a new package, too little for a careless one.
MOST_MEBIBYTES = {"api": 200, "scheduler": 180, "worker": 340}

_WRITABLE = """
import os
for folder, names, files in os.walk("/"):
    names[:] = [name for name in names if os.path.join(folder, name) not in ("/proc", "/sys", "/dev")]
    for name in files + names:
        path = os.path.join(folder, name)
        if not os.path.islink(path) and os.stat(path).st_uid != 0:
            print(path)
"""


@contextmanager
def mounted(image: str) -> Iterator[Path]:
    """The image's files, as a folder of this machine."""
    try:
        yield Path(podman("image", "mount", image))
    finally:
        podman("image", "unmount", image, check=False)


@pytest.mark.parametrize("part", PARTS)
def test_it_holds_what_its_lock_names_and_nothing_else(part: str) -> None:
    found = installed(IMAGES[part])
    assert found.pop("callboard") == __version__
    if part == "worker":
        found.pop("pip")
    assert found == locked(part)


def test_the_api_has_no_dependency_of_a_task() -> None:
    plain, workers = installed(IMAGES["api"]), installed(IMAGES["worker"])
    # httpx is none: the API itself speaks to Kubernetes with it.
    of_tasks = {"lxml", "trafilatura", "htmldate", "dateparser", "py3langid", "numpy"}
    assert of_tasks <= set(workers)
    assert not of_tasks & set(plain)
    # And the API module does not miss them either.
    in_image(IMAGES["api"], "import callboard_api.main")


@pytest.mark.parametrize("part", PARTS)
def test_code_comes_with_scripts_and_pages(part: str) -> None:
    with mounted(IMAGES[part]) as root:
        lib = root / "opt/callboard/lib"
        packages = [("callboard", "."), ("callboard_apps", "."), (f"callboard_{part}", f"services/{part}")]
        for folder, parent in packages:
            tracked = subprocess.run(
                ["git", "ls-files", folder], cwd=ROOT / parent, stdout=subprocess.PIPE, text=True, check=True
            ).stdout.split()
            assert tracked
            assert [name for name in tracked if not (lib / name).exists()] == []
        assert (lib / "callboard/cli/demo/pages/index.html").exists()
        # Nothing can write bytecode later: without it each start would compile everything.
        assert list((lib / "callboard/__pycache__").glob("__init__.*.pyc"))


@pytest.mark.parametrize("part", PARTS)
def test_no_tool_and_no_cache_is_left(part: str) -> None:
    with mounted(IMAGES[part]) as root:
        folders = [*_SYSTEM_FOLDERS, "opt/callboard/venv/bin", "opt/callboard/lib/bin"]
        found = {tool for tool in TOOLS for folder in folders if os.path.lexists(root / folder / tool)}
        assert found == set()
        assert (root / "opt/callboard/venv/bin/pip").exists() == (part == "worker")
        for cache in ("var/cache/apt", "var/lib/apt/lists", "root/.cache", "tmp", "build", "src"):
            assert [path for path in (root / cache).glob("**/*") if path.is_file()] == [], cache


@pytest.mark.parametrize("part", PARTS)
def test_no_address_of_a_mirror_is_left(part: str) -> None:
    with mounted(IMAGES[part]) as root:
        assert not (root / "etc/pip.conf").exists()
        sources = [*(root / "etc/apt").rglob("*.list"), *(root / "etc/apt").rglob("*.sources")]
        assert [path.name for path in sources if "://" in path.read_text()] == []


@pytest.mark.parametrize("part", PARTS)
def test_its_configuration(part: str) -> None:
    told = inspect(IMAGES[part])
    config, labels = told["Config"], told["Labels"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", config["User"])
    entry = config["Entrypoint"]
    assert entry[0] == "/opt/callboard/bin/tini"
    assert entry[-2:] == ["-m", f"callboard_{part}"]
    # With it the children would get SIGTERM beside the runner.
    assert "-g" not in entry
    assert not config.get("Cmd")
    assert labels["org.opencontainers.image.title"] == f"callboard-{part}"
    assert labels["org.opencontainers.image.version"] == __version__
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["org.opencontainers.image.revision"])
    for key in ("created", "licenses", "description", "vendor", "base.name"):
        assert labels[f"org.opencontainers.image.{key}"]


@pytest.mark.parametrize("part", PARTS)
def test_it_is_of_a_sensible_size(part: str) -> None:
    mebibytes = inspect(IMAGES[part])["Size"] / 1024**2
    print(f"callboard-{part}: {mebibytes:.0f} MiB")
    assert mebibytes <= MOST_MEBIBYTES[part]


@pytest.mark.parametrize("part", PARTS)
def test_its_user_owns_nothing_that_it_should_not(part: str) -> None:
    owned = in_image(IMAGES[part], _WRITABLE).splitlines()
    allowed = ("/tmp", "/opt/callboard/venv") if part == "worker" else ("/tmp",)
    assert [path for path in owned if not path.startswith(allowed)] == []
