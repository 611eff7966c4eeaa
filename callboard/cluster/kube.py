"""The line to the cluster's API server: five calls, each one request or a few pages of a list.

The library behind it costs a tenth of a second and 20 MiB to import, so the first call does that, in
whichever thread makes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from callboard.cluster.facts import Autoscaler, Container, Deployment, Pod, Termination
from callboard.cluster.faults import ClusterAway, ClusterError, ClusterForbids
from callboard.metrics import Metrics
from callboard.metrics import metrics as process_metrics

if TYPE_CHECKING:
    import lightkube

T = TypeVar("T")

#: An answer takes milliseconds. A server that is overloaded must not be waited for by many.
TIMEOUT_SECONDS: Final = 3.0
#: The annotation of a worker Deployment that names its queues, separated by commas.
QUEUES: Final = "callboard.dev/queues"
_FORBIDDEN = (401, 403)


class Kube:
    """Speaks to one API server for one namespace, from any thread.

    Every call raises ClusterAway, ClusterForbids, or ClusterError for an answer that makes no sense.
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
        self._client: lightkube.Client | None = None

    def pod(self, name: str) -> Pod | None:
        """A pod; None when there is none of that name."""
        from lightkube.resources.core_v1 import Pod as Kind

        found = self._call("get pods", lambda client: client.get(Kind, name), absent=None)
        return None if found is None else _pod(found)

    def annotate(self, name: str, annotations: Mapping[str, str | None]) -> None:
        """Set annotations of a pod; None removes one. Nothing else of it is touched."""
        from lightkube.resources.core_v1 import Pod as Kind
        from lightkube.types import PatchType

        patch = {"metadata": {"annotations": dict(annotations)}}
        self._call(
            "patch pods",
            lambda client: client.patch(Kind, name, patch, patch_type=PatchType.MERGE),
        )

    def pods(self, labels: Mapping[str, str | None]) -> list[Pod]:
        """The pods with `labels` (None: any value)."""
        from lightkube.resources.core_v1 import Pod as Kind

        return [_pod(one) for one in self._list("list pods", Kind, labels)]

    def deployments(self, labels: Mapping[str, str | None]) -> list[Deployment]:
        """The Deployments with `labels` (None: any value)."""
        from lightkube.resources.apps_v1 import Deployment as Kind

        return [_deployment(one) for one in self._list("list deployments", Kind, labels)]

    def autoscalers(self) -> list[Autoscaler]:
        """The autoscalers of Deployments."""
        from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler as Kind

        found = self._list("list horizontalpodautoscalers", Kind, {})
        return [
            _autoscaler(one) for one in found if one.spec and one.spec.scaleTargetRef.kind == "Deployment"
        ]

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _list(self, what: str, kind: Any, labels: Mapping[str, str | None]) -> list[Any]:
        found: list[Any] = self._call(what, lambda client: [*client.list(kind, labels=dict(labels))])
        return found

    def _call(self, what: str, ask: Callable[[lightkube.Client], Any], **absent: Any) -> Any:
        """`absent`: what to answer for a 404, if that is an answer."""
        import httpx2
        from lightkube.core.exceptions import ConfigError

        outcome = "failed"
        try:
            answer = ask(self._connected())
            outcome = "ok"
        except httpx2.HTTPStatusError as error:
            status = error.response.status_code
            if status == 404 and absent:
                outcome = "ok"
                return absent["absent"]
            said = f"{what}: the API server of the cluster answered {status}: {error}"
            if status in _FORBIDDEN:
                outcome = "forbidden"
                raise ClusterForbids(said) from error
            if status == 429 or status >= 500:
                outcome = "away"
                raise ClusterAway(said) from error
            raise ClusterError(said) from error
        except (httpx2.HTTPError, OSError, ConfigError) as error:
            outcome = "away"
            raise ClusterAway(
                f"{what}: no answer from {self.server}: {str(error) or type(error).__name__}"
            ) from error
        except Exception as error:
            raise ClusterError(f"{what}: an answer that makes no sense: {error}") from error
        finally:
            self._metrics.cluster_requests.labels(what, outcome).inc()
        return answer

    def _connected(self) -> lightkube.Client:
        import httpx2
        import lightkube
        from lightkube.config.kubeconfig import KubeConfig
        from lightkube.config.models import Cluster, User

        with self._lock:
            if self._client is None:
                config = KubeConfig.from_one(
                    cluster=Cluster(
                        server=self.server,
                        certificate_auth=str(self._authority) if self._authority else None,
                    ),
                    # Read anew when it is refused: the kubelet writes a new token every hour.
                    user=User(token_file=str(self._token)),
                    namespace=self.namespace,
                )
                self._client = lightkube.Client(
                    config=config, timeout=httpx2.Timeout(self._timeout), trust_env=False
                )
            return self._client


def _ms(at: datetime | None) -> int:
    return 0 if at is None else int(at.timestamp() * 1000)


def _pod(found: Any) -> Pod:
    meta, status = found.metadata, found.status
    conditions = {one.type: one for one in status.conditions or () if status}
    target, scheduled = conditions.get("DisruptionTarget"), conditions.get("PodScheduled")
    refused = scheduled and scheduled.status == "False" and scheduled.reason == "Unschedulable"
    return Pod(
        name=meta.name,
        created=_ms(meta.creationTimestamp),
        deleted=meta.deletionTimestamp is not None,
        phase=status.phase or "",
        reason=status.reason or "",
        message=status.message or "",
        disruption=(target.reason or "unknown") if target is not None and target.status == "True" else "",
        unschedulable=(scheduled.message or "no reason given") if scheduled is not None and refused else "",
        labels=meta.labels or {},
        containers=tuple(_container(one) for one in status.containerStatuses or ()),
    )


def _container(found: Any) -> Container:
    ends = [state.terminated for state in (found.state, found.lastState) if state and state.terminated]
    waiting = found.state.waiting if found.state else None
    return Container(
        found.name,
        tuple(
            Termination(end.reason or "", end.exitCode, _ms(end.startedAt), _ms(end.finishedAt))
            for end in ends
        ),
        (waiting.reason or "") if waiting else "",
    )


def _deployment(found: Any) -> Deployment:
    spec, status = found.spec, found.status
    conditions: Iterable[Any] = (status and status.conditions) or ()
    failures = [one for one in conditions if one.type == "ReplicaFailure" and one.status == "True"]
    named = (found.metadata.annotations or {}).get(QUEUES, "")
    return Deployment(
        name=found.metadata.name,
        queues=tuple(queue for part in named.split(",") if (queue := part.strip())),
        replicas=1 if spec.replicas is None else spec.replicas,
        ready=(status and status.readyReplicas) or 0,
        paused=bool(spec.paused),
        failure=(failures[0].message or failures[0].reason or "unknown") if failures else "",
        selector=spec.selector.matchLabels or {},
    )


def _autoscaler(found: Any) -> Autoscaler:
    conditions: Iterable[Any] = (found.status and found.status.conditions) or ()
    return Autoscaler(
        name=found.metadata.name,
        target=found.spec.scaleTargetRef.name,
        most=found.spec.maxReplicas,
        keda=(found.metadata.labels or {}).get("app.kubernetes.io/managed-by") == "keda-operator",
        conditions={one.type: (one.status == "True", one.reason or "") for one in conditions},
    )
