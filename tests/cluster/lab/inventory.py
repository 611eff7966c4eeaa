"""What is in a namespace: all of it, of every kind that the API server knows."""

from __future__ import annotations

from tests.cluster.lab.cluster import Cluster

#: What every namespace has, and what only tells of the past.
_ALWAYS = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
_PAST = ("events", "events.events.k8s.io")


def inventory(cluster: Cluster, namespace: str) -> set[str]:
    """Objects as kind/name, such as `secret/callboard-auth`; without what Kubernetes itself puts there."""
    kinds = cluster.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").split()
    listed = ",".join(kind for kind in kinds if kind not in _PAST)
    found = cluster.kubectl("get", listed, f"--namespace={namespace}", "--output=name", "--ignore-not-found")
    return set(found.split()) - _ALWAYS
