"""An API server of Kubernetes as far as our calls go: real HTTP on loopback, with the ways in which it fails.

What the real one says is shown by the tests on a real one; this one is for what the real one does seldom.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from callboard.cluster.kube import Kube
from callboard.metrics import Metrics

NAMESPACE = "acme"


class KubeServer:
    """`objects`: path below the namespace (`pods/x`, `deployments`) to what is answered.

    `status`: answers everything with this error while it is set. `gate`: closed, requests wait for it.
    `patches`: what was patched, in order, as (pod, annotations).
    """

    def __init__(self, folder: Path) -> None:
        self.objects: dict[str, Any] = {}
        self.status = 0
        self.gate = threading.Event()
        self.gate.set()
        self.patches: list[tuple[str, Mapping[str, str | None]]] = []
        self.asked: list[str] = []
        self.tokens: list[str] = []
        self.metrics = Metrics()
        self._kubes: list[Kube] = []
        self.token = folder / "token"
        self.token.write_text("one", encoding="utf-8")
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._serve(None)

            def do_PATCH(self) -> None:
                self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _serve(self, body: Any) -> None:
                status, answer = server.answer(
                    self.command, self.path, self.headers.get("Authorization", ""), body
                )
                raw = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def kube(self, timeout_seconds: float = 3.0) -> Kube:
        made = Kube(
            self.url, NAMESPACE, self.token, None, timeout_seconds=timeout_seconds, metrics=self.metrics
        )
        self._kubes.append(made)
        return made

    def counted(self, request: str, outcome: str) -> float:
        """What the metric says of calls that ended so."""
        value = self.metrics.registry.get_sample_value(
            "callboard_cluster_requests_total", {"request": request, "outcome": outcome}
        )
        return value or 0.0

    def answer(self, method: str, path: str, authorization: str, body: Any) -> tuple[int, Any]:
        self.gate.wait(30)
        path = path.partition("?")[0].partition(f"/namespaces/{NAMESPACE}/")[2]
        self.asked.append(f"{method} {path}")
        self.tokens.append(authorization)
        if self.status:
            return self.status, _refusal(self.status)
        if authorization != f"Bearer {self.token.read_text(encoding='utf-8')}":
            return 401, _refusal(401)
        if method == "PATCH":
            self.patches.append((path.rpartition("/")[2], body["metadata"]["annotations"]))
            return 200, self.objects.get(path, pod(path.rpartition("/")[2]))
        found = self.objects.get(path)
        return (404, _refusal(404)) if found is None else (200, found)

    def stop(self) -> None:
        self.gate.set()
        for kube in self._kubes:
            kube.close()
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def kube_server(folder: Path) -> Iterator[KubeServer]:
    """One that is stopped at the end."""
    server = KubeServer(folder)
    try:
        yield server
    finally:
        server.stop()


def pod(name: str, status: Mapping[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    """A pod as the API has it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "creationTimestamp": "2026-11-22T10:00:00Z", **metadata},
        "spec": {"containers": [{"name": "worker"}]},
        "status": dict(status or {"phase": "Running"}),
    }


def listed(*items: Mapping[str, Any]) -> dict[str, Any]:
    """A list as the API has it."""
    return {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": list(items)}


def _refusal(status: int) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "code": status, "message": f"refused with {status}"}
