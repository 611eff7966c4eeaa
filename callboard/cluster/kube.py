"""The line to the cluster's API server: five calls, each one request or a few pages of a list.

The library behind it takes some 15 MiB, so the first call imports it, in whichever thread makes it.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from callboard.cluster.facts import Autoscaler, Container, Deployment, Pod, Termination
from callboard.cluster.faults import ClusterAway, ClusterError, ClusterForbids
from callboard.metrics import Metrics
from callboard.metrics import metrics as process_metrics

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

T = TypeVar("T")
Json = Mapping[str, Any]

#: An answer takes milliseconds. A server that is overloaded must not be waited for by many.
TIMEOUT_SECONDS: Final = 3.0
#: The annotation of a worker Deployment that names its queues, separated by commas.
QUEUES: Final = "callboard.dev/queues"
_FORBIDDEN = (401, 403)
_PAGE: Final = "500"


class Kube:
    """Speaks to one API server for one namespace, from any thread.

    Every call raises ClusterAway, ClusterForbids, or ClusterError for an answer that makes no sense.
    `selector`: labels as the API takes them, `name` or `name=value`, separated by commas.
    """

    def __init__(
        self,
        server: str,
        namespace: str,
        token: Path,
        authority: Path | None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        metrics: Metrics = process_metrics,
    ) -> None:
        self.server, self.namespace = server, namespace
        self._token, self._authority = token, authority
        self._timeout = timeout_seconds
        self._metrics = metrics
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._closed = False

    def pod(self, name: str) -> Pod | None:
        """A pod; None when there is none of that name."""
        return self._call("get pods", lambda: self._get_pod(name))

    def annotate(self, name: str, annotations: Mapping[str, str | None]) -> None:
        """Set annotations of a pod; None removes one. Nothing else of it is touched."""
        patch = {"metadata": {"annotations": dict(annotations)}}
        kind = {"Content-Type": "application/merge-patch+json"}
        self._call(
            "patch pods", lambda: self._ask("PATCH", "api/v1", f"pods/{name}", json=patch, headers=kind)
        )

    def pods(self, selector: str) -> list[Pod]:
        """The pods with these labels."""
        return self._call("list pods", lambda: [*map(_pod, self._list("api/v1", "pods", selector))])

    def deployments(self, selector: str) -> list[Deployment]:
        """The Deployments with these labels."""
        return self._call(
            "list deployments",
            lambda: [*map(_deployment, self._list("apis/apps/v1", "deployments", selector))],
        )

    def autoscalers(self) -> list[Autoscaler]:
        """The autoscalers of Deployments."""
        group, kind = "apis/autoscaling/v2", "horizontalpodautoscalers"
        found = self._call(f"list {kind}", lambda: [*map(_autoscaler, self._list(group, kind, ""))])
        return [one for one in found if one is not None]

    def close(self) -> None:
        """Close the connections, for good: a thread that still asks would open others and leave them open."""
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
        logging.getLogger("httpx").removeFilter(self._is_news)
        if client is not None:
            client.close()

    def _get_pod(self, name: str) -> Pod | None:
        import httpx

        try:
            return _pod(self._ask("GET", "api/v1", f"pods/{name}"))
        except httpx.HTTPStatusError as error:
            if error.response.status_code == 404:
                return None
            raise

    def _list(self, group: str, kind: str, selector: str) -> Iterator[Json]:
        page = {"labelSelector": selector} if selector else {}
        following = ""
        while True:
            asked = {**page, "limit": _PAGE, **({"continue": following} if following else {})}
            found = self._ask("GET", group, kind, params=asked)
            yield from found["items"]
            following = found["metadata"].get("continue") or ""
            if not following:
                return

    def _ask(
        self, method: str, group: str, path: str, *, headers: Mapping[str, str] | None = None, **what: Any
    ) -> Json:
        # The kubelet writes a new token every hour; reading it costs nothing beside the request.
        token = self._token.read_text(encoding="utf-8").strip()
        answer = self._connected().request(
            method,
            f"{self.server}/{group}/namespaces/{self.namespace}/{path}",
            headers={"Authorization": f"Bearer {token}", **(headers or {})},
            **what,
        )
        answer.raise_for_status()
        found: Json = answer.json()
        return found

    def _call(self, what: str, ask: Callable[[], T]) -> T:
        import httpx

        outcome = "failed"
        try:
            answer = ask()
            outcome = "ok"
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            said = f"{what}: the API server of the cluster answered {status}: {_message(error.response)}"
            if status in _FORBIDDEN:
                outcome = "forbidden"
                raise ClusterForbids(said) from error
            if status == 429 or status >= 500:
                outcome = "away"
                raise ClusterAway(said) from error
            raise ClusterError(said) from error
        except (httpx.HTTPError, OSError) as error:
            outcome = "away"
            raise ClusterAway(
                f"{what}: no answer from {self.server}: {str(error) or type(error).__name__}"
            ) from error
        except Exception as error:
            raise ClusterError(
                f"{what}: an answer that makes no sense ({type(error).__name__}: {error})"
            ) from error
        finally:
            self._metrics.cluster_requests.labels(what, outcome).inc()
        return answer

    def _is_news(self, record: logging.LogRecord) -> bool:
        """Not: that we called. The library logs each request, and a task's own requests are to be seen."""
        asked = record.args[1] if isinstance(record.args, tuple) and len(record.args) > 1 else ""
        return not str(asked).startswith(f"{self.server}/") or logger.isEnabledFor(logging.DEBUG)

    def _connected(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._closed:
                raise ConnectionError("closed")
            if self._client is None:
                logging.getLogger("httpx").addFilter(self._is_news)
                verify = ssl.create_default_context(cafile=self._authority) if self._authority else True
                # A proxy that the environment names is for the world outside, not for the API server.
                self._client = httpx.Client(verify=verify, timeout=self._timeout, trust_env=False)
            return self._client


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase


def _ms(at: str | None) -> int:
    return int(datetime.fromisoformat(at).timestamp() * 1000) if at else 0


def _conditions(status: Json) -> dict[str, Json]:
    return {one["type"]: one for one in status.get("conditions") or ()}


def _pod(found: Json) -> Pod:
    meta, status = found["metadata"], found["status"]
    conditions = _conditions(status)
    target, scheduled = conditions.get("DisruptionTarget", {}), conditions.get("PodScheduled", {})
    disrupted = target.get("status") == "True"
    refused = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    return Pod(
        name=meta["name"],
        created=_ms(meta["creationTimestamp"]),
        deleted="deletionTimestamp" in meta,
        phase=status.get("phase", ""),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        disruption=target.get("reason", "unknown") if disrupted else "",
        unschedulable=scheduled.get("message", "no reason given") if refused else "",
        labels=meta.get("labels") or {},
        containers=tuple(_container(one) for one in status.get("containerStatuses") or ()),
    )


def _container(found: Json) -> Container:
    states = [found.get("state") or {}, found.get("lastState") or {}]
    return Container(
        found["name"],
        tuple(
            Termination(
                end.get("reason", ""), end["exitCode"], _ms(end.get("startedAt")), _ms(end.get("finishedAt"))
            )
            for state in states
            if (end := state.get("terminated"))
        ),
        (states[0].get("waiting") or {}).get("reason", ""),
    )


def _deployment(found: Json) -> Deployment:
    meta, spec, status = found["metadata"], found["spec"], found.get("status") or {}
    failed = _conditions(status).get("ReplicaFailure", {})
    named = (meta.get("annotations") or {}).get(QUEUES, "")
    return Deployment(
        name=meta["name"],
        queues=tuple(queue for part in named.split(",") if (queue := part.strip())),
        replicas=spec.get("replicas", 1),
        ready=status.get("readyReplicas", 0),
        paused=spec.get("paused", False),
        failure=(failed.get("message") or "no reason given") if failed.get("status") == "True" else "",
        selector=spec["selector"].get("matchLabels") or {},
    )


def _autoscaler(found: Json) -> Autoscaler | None:
    meta, spec = found["metadata"], found["spec"]
    if spec["scaleTargetRef"]["kind"] != "Deployment":
        return None
    conditions = _conditions(found.get("status") or {})
    return Autoscaler(
        name=meta["name"],
        target=spec["scaleTargetRef"]["name"],
        most=spec["maxReplicas"],
        keda=(meta.get("labels") or {}).get("app.kubernetes.io/managed-by") == "keda-operator",
        conditions={
            name: (one["status"] == "True", one.get("reason", "")) for name, one in conditions.items()
        },
    )
