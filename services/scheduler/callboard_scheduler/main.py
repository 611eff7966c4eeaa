"""The scheduler's entry: settings in; a timekeeper, the maintenance of all queues, and figures out."""

from __future__ import annotations

import argparse
import logging
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Sequence

from callboard import clock, cluster
from callboard import logging as log_setup
from callboard import settings as settings_module
from callboard.broker import outbox
from callboard.cluster import Coroner
from callboard.errors import CallboardError, Invalid, InvalidSetting, StoreUnavailable
from callboard.maintenance.fate import by_note
from callboard.maintenance.loops import Loops
from callboard.maintenance.policy import Policy
from callboard.maintenance.rounds import Rounds
from callboard.metrics import metrics
from callboard.ops import OpsServer
from callboard.settings import Settings, without_password
from callboard.storage import fitness
from callboard.storage.connection import Connection
from callboard.submit import limits_of
from callboard_scheduler import declared
from callboard_scheduler.surveyor import Surveyor
from callboard_scheduler.timekeeper import Timekeeper

logger = logging.getLogger("callboard_scheduler")

STOPPED, BAD_SETTING, UNFIT = 0, 2, 4
#: SIGTERM to exit, at the latest; what Redis has not answered by then is left.
STOP_SECONDS = 4.0
_LONGEST_WAIT_SECONDS = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a scheduler until SIGTERM or SIGINT: 0; 2: a bad setting; 4: a Redis that must not be used."""
    argparse.ArgumentParser(
        prog="callboard serve scheduler",
        description="Submits what is scheduled and keeps the queues in order. Settings come from CALLBOARD_* "
        "variables; see docs/settings.md.",
    ).parse_args(argv)
    try:
        known = settings_module.load()
        log_setup.configure(known.log_format, known.log_level)
        return Scheduler(known).run()
    except CallboardError as error:
        sys.stderr.write(f"callboard scheduler: {error}\n")
        return BAD_SETTING if isinstance(error, Invalid) else UNFIT


class Scheduler:
    """One scheduler process, from its settings. Any number of them may run."""

    def __init__(self, settings: Settings) -> None:
        if settings.redis_url is None:
            raise InvalidSetting(
                "CALLBOARD_REDIS_URL is not set: the scheduler needs the Redis that the workers use."
            )
        self.settings = settings
        self._url = settings.redis_url
        self._stopping = threading.Event()
        self._loops: Loops | None = None
        self._rounds: list[Rounds] = []

    def run(self) -> int:
        """Serve until told to stop; the exit status. Raises StoreUnfit, InvalidSetting."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        ops = OpsServer(
            self.settings.ops_host,
            self.settings.ops_port,
            live=self._live,
            ready=self._ready,
            metrics=metrics,
        )
        ops.start()
        logger.info("Probes and metrics on http://%s:%d", self.settings.ops_host, ops.port)
        try:
            connection = self._meet_redis()
            if connection is not None:
                self._start(connection)
                self._stopping.wait()
                self._stop()
            logger.info("Stopped.")
            return STOPPED
        finally:
            ops.stop()

    def _meet_redis(self) -> Connection | None:
        """Wait for a Redis that is fit; None when told to stop before."""
        wait = 0.5
        while not self._stopping.is_set():
            try:
                connection = Connection(
                    self._url, namespace=self.settings.namespace, events_keep=self.settings.events_keep
                )
                for warning in connection.run(fitness.check(connection.keys)):
                    logger.warning("%s", warning)
                declared.put_all(connection, self.settings)
            except StoreUnavailable as error:
                logger.error("%s (%s) Next try in %g s.", error, without_password(self._url), wait)
                self._stopping.wait(wait)
                wait = min(wait * 2, _LONGEST_WAIT_SECONDS)
            else:
                return connection
        return None

    def _start(self, connection: Connection) -> None:
        holder = f"{socket.gethostname()}-{secrets.token_hex(3)}"
        limits, _ = limits_of(self.settings)
        deliver = outbox.delivering(self.settings)
        found = cluster.find(self.settings)
        self._loops = Loops(
            connection,
            holder,
            policy=Policy.of(self.settings),
            deliver=deliver,
            fates=Coroner(found[1], found[0]) if found else by_note,
        )
        keeper = Timekeeper(connection, holder, limits=limits)
        surveyor = Surveyor(connection, self._loops.rules, metrics)
        self._rounds = [Rounds("The timekeeper", keeper.tick), Rounds("The surveyor", surveyor.survey)]
        self._loops.start()
        for rounds in self._rounds:
            rounds.start()
        logger.info("Scheduler %s keeps namespace %s.", holder, self.settings.namespace)

    def _stop(self) -> None:
        deadline = clock.monotonic() + STOP_SECONDS
        threads: list[Loops | Rounds] = [*([self._loops] if self._loops else []), *self._rounds]
        for one in threads:
            one.ask_to_stop()
        for one in threads:
            one.stop(max(0.0, deadline - clock.monotonic()))

    def _on_signal(self, number: int, frame: object) -> None:
        self._stopping.set()

    def _live(self) -> bool | str:
        if self._loops is None:
            return True  # it waits for Redis; a restart would mend nothing
        if not self._loops.alive():
            return "maintenance stands still"
        return all(rounds.alive() for rounds in self._rounds) or "the timekeeper or the surveyor stands still"

    def _ready(self) -> bool | str:
        if self._loops is None or not self._loops.reachable:
            return "Redis does not answer"
        return all(rounds.reachable for rounds in self._rounds) or "Redis does not answer"
