"""Dramatiq's own tests, taken from its source distribution at test time: they are LGPL, we are MIT."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "dev.txt"
BUILD = ROOT / "build" / "dramatiq"


class NoTests(Exception):
    """They cannot be had; the message says why."""


def fetch() -> Path:
    """The folder of the tests that belong to the installed Dramatiq; downloaded once, kept in build/.

    pip checks the archive against its hash in requirements/dev.txt. Raises NoTests.
    """
    version = metadata.version("dramatiq")
    folder = BUILD / version
    BUILD.mkdir(parents=True, exist_ok=True)
    with _alone():
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _unpack(_download(version, folder), folder)
            (folder / "complete").touch()
    # In processes of the CLI that its tests start, they are the package `tests`.
    shutil.copytree(Path(__file__).with_name("cli_package"), folder / "tests", dirs_exist_ok=True)
    return folder / "tests"


@contextmanager
def _alone() -> Iterator[None]:
    """Only one of xdist's processes at a time."""
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(version: str, folder: Path) -> Path:
    locked = re.search(r"^dramatiq==(\S+) \\\n(?:    --hash=\S+(?: \\)?\n)+", LOCK.read_text(), re.MULTILINE)
    if locked is None or locked[1] != version:
        raise NoTests(f"Dramatiq {version} is installed, but {LOCK.name} locks another; run make setup")
    folder.mkdir()
    wanted = folder / "requirements.txt"
    wanted.write_text(locked[0])
    # No build isolation: to learn its name pip runs its setup.py, with the setuptools that is locked.
    words = "-m pip --disable-pip-version-check download --quiet --no-deps --no-build-isolation"
    command = [sys.executable, *words.split(), "--no-binary=dramatiq", "--require-hashes"]
    ran = subprocess.run(
        [*command, "--requirement", wanted, "--dest", folder],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    if ran.returncode != 0:
        raise NoTests(f"pip could not download Dramatiq's source distribution: {ran.stderr.strip()[-500:]}")
    [archive] = folder.glob("*.tar.gz")
    return archive


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as contents:
        for member in contents:
            name = Path(member.name).name
            if member.isfile() and re.search(r"^[^/]+/tests/test_\w+\.py$", member.name):
                (folder / "tests").mkdir(exist_ok=True)
                source = contents.extractfile(member)
                assert source is not None
                (folder / "tests" / name).write_bytes(source.read())
    if not (folder / "tests").is_dir():
        raise NoTests(f"{archive.name} has no tests")
