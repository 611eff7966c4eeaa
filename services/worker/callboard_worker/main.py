"""The worker's entry: settings in, a runner with its slots, probes and signals out."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence

import dramatiq

from callboard import clock
from callboard import logging as log_setup
from callboard import settings as settings_module
from callboard.broker import outbox
from callboard.broker.broker import CallboardBroker
from callboard.catalog import published
from callboard.catalog.app import discover
from callboard.catalog.contract import Contract
from callboard.catalog.loading import load
from callboard.catalog.resolution import ResolvedQueue, resolve_queues, worker_slots
from callboard.catalog.schedule import schedules_in
from callboard.catalog.timetable import put_declared
from callboard.errors import CallboardError, InvalidDeclaration, StoreUnavailable, StoreUnfit
from callboard.maintenance.policy import Policy
from callboard.metrics import metrics
from callboard.ops import OpsServer
from callboard.settings import Settings
from callboard.storage import default, fitness
from callboard.storage.connection import Connection
from callboard.storage.keys import Keys
from callboard.storage.operation import Operation
from callboard_worker import hooks
from callboard_worker.berth import Berth
from callboard_worker.definition import Definition, contracts, definitions
from callboard_worker.runner import Runner
from callboard_worker.slots.limits import Limits
from callboard_worker.slots.process import ProcessSlots
from callboard_worker.slots.slot import SlotGroup
from callboard_worker.slots.thread import ThreadSlots

logger = logging.getLogger("callboard_worker")

Publish = Callable[[Keys, Iterable[Contract], Iterable[str], str], Operation[None]]

UNFIT = 4
PLATFORM_QUEUE = "callboard"
#: Imported by the worker and its children before anything of the user's.
_OWN_MODULES = ("callboard_worker.prelude", "callboard_worker.builtin")
_LONGEST_WAIT_SECONDS = 10.0
_EXIT_SECONDS = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker until SIGTERM or SIGINT: 0 when nothing is held at the end, else 1.

    2: a bad setting or module; 4: a Redis that must not be used.
    """
    argparse.ArgumentParser(
        prog="callboard serve worker",
        description="Runs tasks. Settings come from CALLBOARD_* variables; see docs/settings.md.",
    ).parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGINT):
        # While modules are imported there is nothing to give back; as PID 1 we would not even hear of it.
        signal.signal(number, lambda *_: os._exit(0))
    try:
        known = settings_module.load()
        log_setup.configure(known.log_format, known.log_level)
        status = Worker(known).run()
    except CallboardError as error:
        sys.stderr.write(f"callboard worker: {error}\n")
        status = UNFIT if isinstance(error, StoreUnfit) else 2
    threading.Thread(target=_leave, args=(status,), name="leave", daemon=True).start()
    return status


def _leave(status: int) -> None:
    """End the process although bodies or modules left threads behind, for which Python would wait."""
    clock.sleep(_EXIT_SECONDS)
    logger.warning("Threads are left that do not end: %s.", ", ".join(thread.name for thread in _left()))
    logging.shutdown()
    os._exit(status)


def _left() -> list[threading.Thread]:
    own = (threading.main_thread(), threading.current_thread())
    return [thread for thread in threading.enumerate() if not thread.daemon and thread not in own]


class Worker:
    """One worker process, from its settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stopping = threading.Event()
        self._signals = 0
        self.modules = self._load()
        broker = dramatiq.get_broker()
        if not isinstance(broker, CallboardBroker):
            raise InvalidDeclaration(
                f"The modules make {type(broker).__name__} Dramatiq's broker; a Callboard worker runs the "
                "actors of dramatiq.set_broker(CallboardBroker(url))."
            )
        self.broker = broker
        # A program that names its Redis need not name it twice.
        default.configure(settings.redis_url or broker.url, settings=settings)
        self._agree(broker.connection, default.connection())
        self.known: dict[str, Definition] = definitions(broker)
        self.queues = self._resolve()
        self.connection: Connection = default.connection()
        self.berth = Berth(settings, self.connection)
        self.runner = Runner(
            self.connection,
            broker,
            self.known,
            self.queues,
            slots=worker_slots(settings),
            make_slots=self._make_slots,
            policy=Policy.of(settings),
            deliver=outbox.delivering(settings),
            fates=self.berth.fates,
            host=self.berth.host,
        )
        self._published = False

    @staticmethod
    def _agree(theirs: Connection, ours: Connection) -> None:
        """One Redis and one namespace: what is sent to others would never run here."""
        if theirs.place != ours.place:
            raise InvalidDeclaration(
                f"The modules' CallboardBroker uses {theirs.place}, this worker {ours.place}: give both the "
                "same, or none to the broker."
            )

    def _load(self) -> list[str]:
        """Import everything; the modules that the children need too."""
        names = [*_OWN_MODULES]
        for name in _OWN_MODULES:
            importlib.import_module(name)
        for app in discover(self.settings.apps):
            names += app.task_modules
        names += self.settings.modules
        self._loaded = load(names)
        return names

    def _resolve(self) -> dict[str, ResolvedQueue]:
        wanted = self.settings.worker_queues
        chosen = [*wanted, PLATFORM_QUEUE] if wanted else []
        return resolve_queues(contracts(self.known.values()), self.settings, chosen)

    def _make_slots(self, form: str, capacity: int, runner: Runner) -> SlotGroup:
        limits = Limits()
        grace = self.settings.worker_grace_seconds
        if form == "process":
            return ProcessSlots(
                capacity,
                runner,
                modules=self.modules,
                limits=limits,
                grace_seconds=grace,
                tasks_per_child=self.settings.worker_tasks_per_child,
            )
        if form == "thread":
            return ThreadSlots(capacity, runner, invoke=runner.invoke, limits=limits, grace_seconds=grace)
        from callboard_worker.slots.loop import LoopSlots

        return LoopSlots(capacity, runner, limits=limits, grace_seconds=grace)

    def run(self) -> int:
        """Serve until told to stop; the exit status."""
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
            if not self._meet_redis():
                return 0
            hooks.process_booted(self.broker)
            self.runner.start()
            logger.info(
                "Worker %s serves %s with %d slots.",
                self.runner.id,
                ", ".join(self.queues),
                self.runner.slots,
            )
            self.berth.moor(self.runner)
            self._serve()
            self.berth.cast_off()
            logger.info("Draining: %d tasks are held.", self.runner.dispatcher.busy)
            clean = self.runner.drain(self.settings.worker_drain_seconds)
            self.berth.leave(clean)
            logger.info("Stopped; %s.", "nothing is held" if clean else "some tasks could not be given back")
            return 0 if clean else 1
        finally:
            ops.stop()

    def _meet_redis(self) -> bool:
        """Wait for a Redis that is fit; False when told to stop before. Raises StoreUnfit."""
        wait = 0.5
        while not self._stopping.is_set():
            try:
                for warning in self.connection.run(fitness.check(self.connection.keys)):
                    logger.warning("%s", warning)
                self._publish(published.publish)
                self._put_schedules()
            except StoreUnavailable as error:
                logger.error("%s Next try in %g s.", error, wait)
                self._stopping.wait(wait)
                wait = min(wait * 2, _LONGEST_WAIT_SECONDS)
            else:
                self._published = True
                return True
        return False

    def _publish(self, operation: Publish) -> None:
        self.connection.run(
            operation(self.connection.keys, contracts(self.known.values()), list(self.queues), self.runner.id)
        )

    def _put_schedules(self) -> None:
        """Schedules that the user's modules declare: the stock scheduler cannot import those."""
        keys = self.connection.keys
        for name, module in zip(self.modules, self._loaded, strict=True):
            if name in self.settings.modules and (found := schedules_in(module)):
                self.connection.run(put_declared(keys, found, f"module:{name}"))

    def _serve(self) -> None:
        while not self._stopping.wait(published.REFRESH_SECONDS):
            try:
                self._publish(published.refresh)
            except CallboardError as error:
                logger.warning("The catalog was not refreshed: %s", error)
            self.berth.note()

    def _on_signal(self, number: int, frame: object) -> None:
        self._signals += 1
        self._stopping.set()
        if self._signals > 1:
            self.runner.hurry()

    def _live(self) -> bool | str:
        return not self._published or self.runner.live()

    def _ready(self) -> bool:
        return self._published and self.runner.ready()
