"""Whether we run in a cluster, and where in it."""

from __future__ import annotations

import hashlib
import logging
import socket
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from callboard.cluster.kube import Kube
from callboard.settings import Settings, kubernetes_address

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """This process's place. `cluster`: tells clusters apart, by their certificate authority."""

    server: str
    cluster: str
    namespace: str
    pod: str
    token: Path
    authority: Path


def here(settings: Settings, server: str | None = None) -> Place | None:
    """Where we run; None outside a cluster, without a mounted service account, or when it is turned off.

    server: the API server's URL, by default what Kubernetes put into the environment.
    """
    server = server or kubernetes_address()
    if settings.cluster == "off" or server is None:
        return None
    folder = settings.cluster_account_dir
    token, authority = folder / "token", folder / "ca.crt"
    try:
        certificate = authority.read_bytes()
        namespace = (folder / "namespace").read_text(encoding="utf-8").strip()
        if not token.is_file() or not namespace:
            return None
    except OSError:
        return None
    return Place(
        server=server,
        cluster=hashlib.sha256(certificate).hexdigest()[:16],
        namespace=namespace,
        pod=settings.cluster_pod or socket.gethostname(),
        token=token,
        authority=authority,
    )


def find(settings: Settings) -> tuple[Place, Kube] | None:
    """Where we run, and what speaks to its API; None when there is nothing to speak to, or with."""
    place = here(settings)
    if place is None:
        return None
    if find_spec("httpx") is None:
        logger.info(
            "This is a pod, and the extra 'cluster' is not installed (pip install 'callboard[cluster]'): the "
            "cluster is told nothing of our work, and asked nothing."
        )
        return None
    return place, Kube(place.server, place.namespace, place.token, place.authority)
