"""The berth: the worker's place in a cluster, or outside one. What it notes of itself there, what it tells
the cluster while it works, and what it learns of its end.

Nothing here may hold a task up: the cluster's API is spoken to in threads of its own, and whatever it does
not answer is done without.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from callboard import clock, cluster
from callboard.catalog import origin
from callboard.catalog.origin import Origin
from callboard.cluster import Coroner, Herald, coroner
from callboard.cluster.faults import ClusterError
from callboard.errors import CallboardError
from callboard.maintenance.fate import Fates, by_note
from callboard.settings import Settings
from callboard.storage.connection import Connection
from callboard_worker.runner import Runner

logger = logging.getLogger(__name__)

#: So long a worker that has ended everything else waits for its last word to be written.
_LAST_WORD_SECONDS = 1.0


class Berth:
    """One worker's place. `fates`: judges other workers that vanished; `host`: what this one is called after.

    moor, note, cast_off and leave are called in this order, from the main thread.
    """

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings, self._connection = settings, connection
        self._found = cluster.find(settings)
        self.fates: Fates = Coroner(self._found[1], self._found[0]) if self._found else by_note
        self.host = self._found[0].pod if self._found else settings.cluster_pod
        self._herald: Herald | None = None
        self._runner: Runner | None = None
        self._origin: Origin | None = None
        self._leaving: threading.Thread | None = None
        self._left = False

    def moor(self, runner: Runner) -> None:
        """The worker works: note where, and begin to tell the cluster."""
        self._runner = runner
        self._origin = Origin(since=runner.since)
        if self._found is None:
            return
        place, kube = self._found
        self._origin = replace(self._origin, cluster=place.cluster, namespace=place.namespace, pod=place.pod)
        self.note()
        self._herald = Herald(
            kube,
            place.pod,
            runner.in_hand,
            deletion_cost=self._settings.cluster_deletion_cost,
            protect_seconds=self._settings.cluster_protect_seconds,
        )
        self._herald.start()
        logger.info("This is pod %s of namespace %s.", place.pod, place.namespace)

    def note(self) -> None:
        """Renew the note, in a cluster; nobody needs one of a worker that lives elsewhere."""
        if self._found is not None and self._origin is not None:
            self._write(self._origin)

    def cast_off(self) -> None:
        """The worker was told to stop: note that, and look why. Does not wait."""
        # If it is killed before its tasks have ended, this tells the others that it was not their fault.
        self._leaving = threading.Thread(target=self._look, name="cast-off", daemon=True)
        self._leaving.start()

    def leave(self, clean: bool) -> None:
        """The worker has ended what it held (`clean`), or gave up."""
        self._left = True
        if self._leaving is not None:
            self._leaving.join(_LAST_WORD_SECONDS)
        if self._herald is not None:
            self._herald.stop()
        if clean and self._runner is not None:
            try:
                self._connection.run(origin.forget(self._connection.keys, self._runner.id))
            except CallboardError as error:
                logger.debug("The note stays for a day: %s", error)

    def _look(self) -> None:
        if self._origin is None or self._runner is None:
            return
        leaving = replace(self._origin, draining=clock.now_ms())
        self._write(leaving)
        if self._found is None:
            return
        place, kube = self._found
        try:
            pod = kube.pod(place.pod)
        except ClusterError as error:
            logger.debug("Why the pod ends is not known: %s", error)
            return
        reason = "its pod was deleted" if pod is None else coroner.taken_away(pod)
        if reason:
            logger.info("The worker stops: %s.", reason)
            self._runner.stop_cause = f"shutdown: {reason}"
            self._write(replace(leaving, reason=reason))

    def _write(self, note: Origin) -> None:
        if self._runner is None or self._left:
            return
        try:
            self._connection.run(origin.note(self._connection.keys, self._runner.id, note))
        except CallboardError as error:
            logger.debug("Where this worker lives was not noted: %s", error)
