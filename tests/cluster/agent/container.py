"""One container: a local process with mounts of its own, its restarts, its probes, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.cluster.agent.api import Api, Away, Object, Refused
from tests.cluster.agent.environment import ConfigMissing, container_environment, expand
from tests.cluster.agent.image import Image
from tests.cluster.agent.network import Network
from tests.cluster.agent.probe import Check, Probe
from tests.cluster.agent.volume import Volumes

_SANDBOX = Path(__file__).with_name("sandbox.sh")
_POLL_SECONDS = 0.05
_LEAST_GRACE_SECONDS = 1.0
_FIRST_BACKOFF_SECONDS, _LONGEST_BACKOFF_SECONDS = 1.0, 30.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def stamp() -> str:
    """Now, as Kubernetes writes times."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Surroundings:
    """What a pod gives to its containers."""

    api: Api
    pod: Object
    network: Network
    api_address: tuple[str, str]
    folder: Path
    hosts: Path
    volumes: Volumes
    find_image: Callable[[str], Image | None]

    @property
    def grace_seconds(self) -> float:
        """How long a container may take to end after SIGTERM."""
        asked = self.pod["metadata"].get("deletionGracePeriodSeconds")
        return asked if asked is not None else self.pod["spec"].get("terminationGracePeriodSeconds", 30)


class Container:
    """Driven by its pod's thread: `tick` while the pod lives, `stop` at its end."""

    def __init__(self, around: Surroundings, spec: Object, *, first: bool = False) -> None:
        """first: an init container, which is over once it has exited with 0."""
        self._around, self._spec, self._first = around, spec, first
        self.name: str = spec["name"]
        self._process: subprocess.Popen[bytes] | None = None
        self._probes: dict[str, Probe] = {}
        self._restarts, self._started_at = 0, ""
        self._last: Object | None = None
        self._waits_for, self._complaint = "ContainerCreating", ""
        self._retry_at, self._backoff = 0.0, _FIRST_BACKOFF_SECONDS
        self._remember(
            around.pod["status"].get("initContainerStatuses" if first else "containerStatuses") or []
        )

    def _remember(self, statuses: Sequence[Object]) -> None:
        """What an agent before this one has reported; its processes died with it."""
        for status in statuses:
            if status["name"] == self.name:
                self._restarts = status["restartCount"]
                self._last = status["state"].get("terminated")
                if "running" in status["state"]:
                    self._last = {"exitCode": 137, "reason": "Error", "finishedAt": stamp()}

    @property
    def succeeded(self) -> bool:
        """It has ended, with 0."""
        return self._process is None and self._last is not None and self._last["exitCode"] == 0

    @property
    def exit_code(self) -> int | None:
        """How it ended last."""
        return self._last["exitCode"] if self._last else None

    @property
    def begun(self) -> bool:
        """It runs, or has run."""
        return self._process is not None or self._last is not None

    @property
    def over(self) -> bool:
        """It does not run and will not again."""
        return self._process is None and self._last is not None and not self._wanted()

    @property
    def ready(self) -> bool:
        """It runs, and its readiness probe agrees."""
        if self._process is None or "startupProbe" in self._probes:
            return False
        if "readinessProbe" in self._spec:
            probe = self._probes.get("readinessProbe")
            return probe is not None and probe.verdict is True
        return True

    def tick(self) -> None:
        """Start what should run, notice what has ended, restart what its probes give up."""
        if self._process is None:
            if time.monotonic() >= self._retry_at and self._wanted():
                self._start()
            return
        if (code := self._process.poll()) is not None:
            self._ended(code)
            return
        startup = self._probes.get("startupProbe")
        if startup and startup.verdict:
            self._probes.pop("startupProbe").end()
            startup = None
        if startup is None:
            for kind in ("livenessProbe", "readinessProbe"):
                if kind in self._spec and kind not in self._probes:
                    self._probes[kind] = self._ask(kind)
        for kind in ("startupProbe", "livenessProbe"):
            if kind in self._probes and self._probes[kind].verdict is False:
                print(f"{self._title}: {kind} failed, restarting", flush=True)
                self.stop(self._around.grace_seconds)
                return

    def stop(self, grace_seconds: float, hurry: threading.Event | None = None) -> None:
        """preStop, SIGTERM to the main process alone, and after the grace period SIGKILL to its group.

        hurry: once it is set, a second is left.
        """
        if self._process is None:
            return
        deadline = time.monotonic() + grace_seconds
        if hook := (self._spec.get("lifecycle") or {}).get("preStop"):
            if "sleep" in hook:
                time.sleep(min(hook["sleep"]["seconds"], grace_seconds))
            else:
                self._check(hook, grace_seconds)
        self._process.send_signal(signal.SIGTERM)
        while (code := self._process.poll()) is None:
            if hurry and hurry.is_set():
                deadline, hurry = min(deadline, time.monotonic() + _LEAST_GRACE_SECONDS), None
            if time.monotonic() >= deadline:
                print(f"{self._title}: killed, its grace period is over", flush=True)
                self._kill()
                code = self._process.wait()
                break
            time.sleep(_POLL_SECONDS)
        self._ended(code)

    def status(self) -> Object:
        """A ContainerStatus."""
        if self._process is not None:
            state: Object = {"running": {"startedAt": self._started_at}}
        elif self.over:
            state = {"terminated": self._last}
        else:
            state = {"waiting": {"reason": self._waits_for, "message": self._complaint}}
        return {
            "name": self.name,
            "image": self._spec["image"],
            "imageID": self._spec["image"],
            "ready": self.succeeded if self._first else self.ready,
            "started": self._process is not None and "startupProbe" not in self._probes,
            "restartCount": self._restarts,
            "state": state,
            "lastState": {"terminated": self._last} if self._last and self._restarts else {},
        }

    # -- inside

    @property
    def _title(self) -> str:
        meta = self._around.pod["metadata"]
        return f"{meta['namespace']}/{meta['name']}/{self.name}"

    def _wanted(self) -> bool:
        policy = self._around.pod["spec"].get("restartPolicy", "Always")
        if self._last is None:
            return True
        if self._first or policy == "OnFailure":
            return self._last["exitCode"] != 0 and policy != "Never"
        return policy == "Always"

    def _start(self) -> None:
        image = self._around.find_image(self._spec["image"])
        if image is None:
            self._wait("ErrImageNeverPull", f"no image {self._spec['image']} here", 10)
            return
        try:
            argv, environment = self._command(image)
        except (ConfigMissing, Refused) as error:
            self._wait("CreateContainerConfigError", str(error), 1)
            return
        except Away:
            self._retry_at = time.monotonic() + 1
            return
        with (self._around.folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started_at = stamp()
        self._restarts += self._last is not None
        if "startupProbe" in self._spec:
            self._probes["startupProbe"] = self._ask("startupProbe")

    def _command(self, image: Image) -> tuple[list[str], dict[str, str]]:
        around = self._around
        environment = {
            "PATH": _PATH,
            "HOME": "/",
            "LANG": "C.UTF-8",
            "HOSTNAME": around.pod["metadata"]["name"],
            # In every container of Kubernetes; here they lead to the API server itself, not to its Service.
            "KUBERNETES_SERVICE_HOST": around.api_address[0],
            "KUBERNETES_SERVICE_PORT": around.api_address[1],
            **image.environment,
            **container_environment(around.api, around.pod, self._spec),
        }
        security = (around.pod["spec"].get("securityContext") or {}) | (
            self._spec.get("securityContext") or {}
        )
        user, group = security.get("runAsUser", image.user), security.get("runAsGroup", image.group)
        if user == 0 and security.get("runAsNonRoot"):
            raise ConfigMissing("the pod must not run as root, and neither it nor the image names a user")
        capabilities = security.get("capabilities") or {}
        root = around.folder / "root" / self.name
        root.mkdir(parents=True, exist_ok=True)
        sandbox = [
            *("nsenter", "--target", str(around.network.pid), "--net"),
            *("unshare", "--uts", "--mount", "--propagation", "private", str(_SANDBOX), str(root)),
            "ro" if security.get("readOnlyRootFilesystem") else "rw",
            self._spec.get("workingDir") or image.folder,
            *(str(user), str(group), "none" if "ALL" in (capabilities.get("drop") or []) else "all"),
            *(part for mount in image.mounts for part in mount),
            *(str(around.hosts), "/etc/hosts", "ro"),
            *around.volumes.mounts(self._spec),
            "--",
            *image.argv(self._said(environment)),
        ]
        return sandbox, environment

    def _said(self, environment: Mapping[str, str]) -> dict[str, list[str]]:
        """The container's own `command` and `args`, as far as it has some."""
        return {
            key: [expand(part, environment) for part in self._spec[key]]
            for key in ("command", "args")
            if self._spec.get(key)
        }

    def _wait(self, reason: str, message: str, seconds: float) -> None:
        if (reason, message) != (self._waits_for, self._complaint):
            print(f"{self._title}: {reason}: {message}", flush=True)
        self._waits_for, self._complaint = reason, message
        self._retry_at = time.monotonic() + seconds

    def _ask(self, kind: str) -> Probe:
        return Probe(Check(self._spec, self._around.network.address, self._process_id), self._spec[kind])

    def _check(self, spec: Object, timeout: float) -> None:
        Check(self._spec, self._around.network.address, self._process_id)(spec, timeout)

    def _process_id(self) -> int | None:
        return self._process.pid if self._process else None

    def _ended(self, code: int) -> None:
        for probe in self._probes.values():
            probe.end()
        self._probes.clear()
        code = code if code >= 0 else 128 - code
        self._last = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "startedAt": self._started_at,
            "finishedAt": stamp(),
        }
        self._kill()
        self._process = None
        self._waits_for, self._complaint = "CrashLoopBackOff", f"it ended with {code}"
        self._retry_at = time.monotonic() + self._backoff
        self._backoff = min(self._backoff * 2, _LONGEST_BACKOFF_SECONDS)
        if self._wanted() and not self._around.pod["metadata"].get("deletionTimestamp"):
            print(f"{self._title}: ended with {code}", flush=True)

    def _kill(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
