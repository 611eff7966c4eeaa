"""Containers on test: each read-only, without capabilities, with a limit of the kernel's on its memory."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from tests.support.ports import free_port
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]
ENVIRONMENT = os.environ | {"CONTAINERS_CONF": str(ROOT / "scripts/images/containers.conf")}
IMAGES = {part: f"localhost/callboard-{part}:latest" for part in ("api", "worker", "scheduler")}
OWN_IMAGE = "localhost/acme-worker:latest"

#: As the chart's security context has it.
CONFINED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--tmpfs=/tmp:rw,size=32m,mode=1777",
    "--network=host",
)


def podman(*words: str, check: bool = True, timeout: float = 60) -> str:
    """What `podman …` prints; fails the test with its words when it fails."""
    # When a container meets its memory limit, conmon leaves an empty file called `oom` where it was started.
    with TemporaryDirectory() as folder:
        done = subprocess.run(
            ["podman", *words],
            env=ENVIRONMENT,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
    assert done.returncode == 0 or not check, f"podman {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


def inspect(image: str) -> dict[str, Any]:
    """What the image says of itself."""
    return json.loads(podman("image", "inspect", image))[0]


def in_image(image: str, code: str) -> str:
    """What a program in Python prints in a confined container of the image."""
    return run_in_image(image, "/opt/callboard/venv/bin/python", "-c", code)


def run_in_image(image: str, program: str, *words: str, env: dict[str, str] | None = None) -> str:
    """What a program of the image prints in a confined container. `env`: settings by their short names."""
    settings = [f"--env=CALLBOARD_{key}={value}" for key, value in (env or {}).items()]
    entry = f"--entrypoint={program}"
    return podman("run", "--rm", *CONFINED, "--memory=256m", *settings, entry, image, *words, timeout=120)


class Container:
    """One running container of a service."""

    def __init__(self, name: str, ops_port: int) -> None:
        self.name = name
        self.ops_port = ops_port

    def state(self) -> dict[str, Any]:
        return json.loads(podman("container", "inspect", self.name))[0]["State"]

    @property
    def running(self) -> bool:
        return bool(self.state()["Running"])

    @property
    def pid(self) -> int:
        """Its first process, by the machine's numbers."""
        return int(self.state()["Pid"])

    def logs(self) -> str:
        done = subprocess.run(
            ["podman", "logs", self.name],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout

    def ready(self) -> bool:
        """Whether `/readyz` says so. A container that has ended fails the test."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.ops_port}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            assert self.running, f"{self.name} has ended:\n{self.logs()}"
            return False

    def await_ready(self, seconds: float = 60) -> None:
        try:
            wait_until(self.ready, seconds, f"{self.name} to be ready", poll=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def metrics(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.ops_port}/metrics", timeout=5).text

    def terminate(self) -> None:
        """Send SIGTERM to its first process, as Kubernetes does."""
        podman("kill", "--signal=TERM", self.name)

    def await_end(self, seconds: float = 30) -> int:
        """Its exit status."""
        wait_until(lambda: not self.running, seconds, f"the end of {self.name}", poll=0.1)
        return int(self.state()["ExitCode"])

    def processes(self) -> dict[int, dict[str, str]]:
        """The `status` file of each process inside, by its number on this machine."""
        found = {}
        inside = os.readlink(f"/proc/{self.pid}/ns/pid")
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                same = os.readlink(folder / "ns/pid") == inside
                lines = (folder / "status").read_text().splitlines() if same else []
            except OSError:  # It ended while we looked.
                continue
            if lines:
                found[int(folder.name)] = {
                    key: value.strip() for key, _, value in (line.partition(":") for line in lines)
                }
        return found


@contextmanager
def container(
    image: str,
    env: dict[str, str],
    *,
    memory: str,
    mounts: dict[Path, str] | None = None,
) -> Iterator[Container]:
    """A confined container of `image`, removed at the end. `env`: settings by their short names."""
    ops_port = free_port()
    name = f"callboard-test-{ops_port}-{os.getpid()}"
    settings = {"OPS_PORT": str(ops_port), "OPS_HOST": "127.0.0.1", **env}
    podman(
        "run",
        "--detach",
        f"--name={name}",
        *CONFINED,
        f"--memory={memory}",
        f"--memory-swap={memory}",
        *(f"--env=CALLBOARD_{key}={value}" for key, value in settings.items()),
        *(f"--volume={source}:{target}:ro" for source, target in (mounts or {}).items()),
        image,
    )
    try:
        yield Container(name, ops_port)
    finally:
        podman("rm", "--force", "--time=0", name, check=False)
