"""Probes: a pod's health, asked as a kubelet asks."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from tests.cluster.agent.api import Object


def port_number(container: Object, port: int | str) -> int:
    """A port's number, given by number or by name."""
    if isinstance(port, int):
        return port
    return next(p["containerPort"] for p in container.get("ports") or [] if p.get("name") == port)


class Check:
    """Asks one container once: over HTTP, TCP, or by a command inside."""

    def __init__(self, container: Object, address: str, process_id: Callable[[], int | None]) -> None:
        self._container, self._address, self._process_id = container, address, process_id

    def __call__(self, spec: Object, timeout: float) -> bool:
        try:
            if target := spec.get("httpGet"):
                return self._http(target, timeout)
            if target := spec.get("tcpSocket"):
                port = port_number(self._container, target["port"])
                socket.create_connection((self._address, port), timeout).close()
                return True
            return self._command(spec["exec"]["command"], timeout)
        except (OSError, http.client.HTTPException, subprocess.SubprocessError):
            return False

    def _http(self, target: Object, timeout: float) -> bool:
        host, port = target.get("host") or self._address, port_number(self._container, target["port"])
        link: http.client.HTTPConnection
        if target.get("scheme") == "HTTPS":
            # A kubelet does not verify either.
            unverified = ssl._create_unverified_context()
            link = http.client.HTTPSConnection(host, port, timeout=timeout, context=unverified)
        else:
            link = http.client.HTTPConnection(host, port, timeout=timeout)
        headers = {header["name"]: header["value"] for header in target.get("httpHeaders") or []}
        with closing(link):
            link.request("GET", target.get("path", "/"), headers=headers)
            return 200 <= link.getresponse().status < 400

    def _command(self, command: list[str], timeout: float) -> bool:
        pid = self._process_id()
        if pid is None:
            return False
        inside = ["nsenter", "--target", str(pid), "--mount", "--net", "--root", "--wd", "--", *command]
        done = subprocess.run(
            inside, timeout=timeout, env=_environment_of(pid), capture_output=True, check=False
        )
        return done.returncode == 0


def _environment_of(pid: int) -> Mapping[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


class Probe(threading.Thread):
    """Asks again and again. `verdict`: None until enough answers in a row agree, then the last agreed one."""

    def __init__(self, check: Check, spec: Object) -> None:
        super().__init__(daemon=True)
        self._check, self._spec, self._over = check, spec, threading.Event()
        self.verdict: bool | None = None
        self.start()

    def end(self) -> None:
        """Ask no more."""
        self._over.set()

    def run(self) -> None:
        spec, alike, last = self._spec, 0, None
        self._over.wait(spec.get("initialDelaySeconds", 0))
        while not self._over.is_set():
            answer = self._check(spec, spec.get("timeoutSeconds", 1))
            alike, last = (alike + 1 if answer == last else 1), answer
            if alike >= (spec.get("successThreshold", 1) if answer else spec.get("failureThreshold", 3)):
                self.verdict = answer
            self._over.wait(spec.get("periodSeconds", 10))
