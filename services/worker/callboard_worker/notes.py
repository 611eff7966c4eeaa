"""The note writer: brings progress and log lines of running tasks to Redis, ten times a second at most."""

from __future__ import annotations

import logging
import threading

from callboard import clock
from callboard.broker import turn
from callboard.broker.turn import FLUSH_BYTES, FLUSH_TASKS, Notes
from callboard.errors import CallboardError
from callboard.storage.connection import Connection
from callboard_worker.held import NOTE_SECONDS, Held, Ledger

logger = logging.getLogger(__name__)


class NoteWriter:
    """One thread, asleep while nothing is told. What it cannot write travels with the task's end."""

    def __init__(self, connection: Connection, ledger: Ledger) -> None:
        self._connection = connection
        self._ledger = ledger
        self._stirred = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="notes", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stir(self) -> None:
        """Somebody has told something."""
        if not self._stirred.is_set():
            self._stirred.set()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._stirred.set()

    def _run(self) -> None:
        while not self._stopping:
            self._stirred.wait()
            self._stirred.clear()
            if self._stopping:
                return
            try:
                self._write(clock.monotonic())
            except CallboardError as error:
                logger.debug("Notes were not written: %s", error)
                clock.sleep(0.5)
                self._stirred.set()
            except Exception:
                logger.exception("Notes were not written.")
            clock.sleep(NOTE_SECONDS)

    def _write(self, now: float) -> None:
        queues: dict[str, list[tuple[Held, Notes]]] = {}
        left = False
        for held in list(self._ledger.by_token.values()):
            if held.told is None or held.ended:
                continue
            if held.told.due(now):
                queues.setdefault(held.queue, []).append((held, held.told.pending(now)))
            else:
                left = True
        for queue, told in queues.items():
            while told:
                self._write_some(queue, told)
        if left:
            self._stirred.set()

    def _write_some(self, queue: str, told: list[tuple[Held, Notes]]) -> None:
        batch: list[tuple[Held, Notes]] = []
        size = 0
        while told and len(batch) < FLUSH_TASKS and (not batch or size < FLUSH_BYTES):
            size += sum(len(line) for line in told[0][1].lines) + len(told[0][1].progress)
            batch.append(told.pop(0))
        answers = self._connection.run(
            turn.note(
                self._connection.keys,
                queue,
                [(held.claim.local, held.claim.token, notes) for held, notes in batch],
            )
        )
        for (held, notes), answer in zip(batch, answers, strict=True):
            if answer == "ok" and held.told is not None:
                held.told.confirm(notes)
