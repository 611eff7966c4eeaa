"""The API server, as a node agent speaks to it: plain JSON, lists and watches."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

Object = dict[str, Any]

_SERVER_ENDS_A_WATCH_AFTER_SECONDS = 300
_STRATEGIC = "application/strategic-merge-patch+json"


class Refused(Exception):
    """The API server answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Away(Exception):
    """The API server did not answer."""


class Api:
    """Calls by path, such as /api/v1/nodes. Thread-safe. Every call raises `Refused` or `Away`."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text(encoding="utf-8"))
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cafile=cluster["certificate-authority"])
        context.load_cert_chain(user["client-certificate"], user["client-key"])
        self.host, self.port = cluster["server"].removeprefix("https://").split(":")
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=16)
        self._http = httpx.Client(
            base_url=cluster["server"], verify=context, timeout=10, limits=limits, trust_env=False
        )

    def get(self, path: str, **parameters: str) -> Object:
        """An object, or a list of them."""
        return self._call("GET", path, params=parameters)

    def create(self, path: str, body: Object) -> Object:
        """POST to a collection, or to a subresource."""
        return self._call("POST", path, json=body)

    def patch(self, path: str, body: Object) -> Object:
        """A strategic merge patch: list items merge by their keys."""
        return self._call("PATCH", path, content=json.dumps(body), headers={"content-type": _STRATEGIC})

    def delete(self, path: str, body: Object | None = None) -> None:
        """What is gone already is no error."""
        try:
            self._call("DELETE", path, json=body or {})
        except Refused as refusal:
            if refusal.status not in (404, 409):
                raise

    def data(self, kind: str, namespace: str, name: str, *, optional: bool = False) -> dict[str, bytes]:
        """The data of a ConfigMap or Secret (`configmaps`, `secrets`); empty when optional and absent."""
        try:
            found = self.get(f"/api/v1/namespaces/{namespace}/{kind}/{name}")
        except Refused as refusal:
            if refusal.status == 404 and optional:
                return {}
            raise
        plain = {key: value.encode() for key, value in (found.get("data") or {}).items()}
        if kind == "secrets":
            return {key: base64.b64decode(value) for key, value in plain.items()}
        return plain

    def follow(self, path: str, **parameters: str) -> Iterator[tuple[str, Any]]:
        """("LISTED", all objects) once, then (ADDED | MODIFIED | DELETED, object) until the watch ends.

        The caller calls again then; whatever was missed between shows in the next list.
        """
        listed = self.get(path, **parameters)
        yield "LISTED", listed["items"]
        parameters |= {
            "watch": "1",
            "resourceVersion": listed["metadata"]["resourceVersion"],
            "timeoutSeconds": str(_SERVER_ENDS_A_WATCH_AFTER_SECONDS),
        }
        try:
            with self._http.stream(
                "GET", path, params=parameters, timeout=httpx.Timeout(10, read=None)
            ) as reply:
                for line in reply.iter_lines():
                    event = json.loads(line)
                    if event["type"] == "ERROR":  # such as: the version is too old to go on from
                        return
                    yield event["type"], event["object"]
        except httpx.HTTPError as error:
            raise Away(str(error)) from error

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def _call(self, method: str, path: str, **options: Any) -> Object:
        try:
            reply = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise Away(f"{type(error).__name__}: {error}") from error
        if reply.is_error:
            raise Refused(reply.status_code, _message(reply))
        return reply.json()


def _message(reply: httpx.Response) -> str:
    try:
        return str(reply.json().get("message", reply.text))[:500]
    except ValueError:
        return reply.text[:500]
