"""A runner inside the test's own process, with bodies that wait until the test lets them go."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from callboard import settings
from callboard.broker.broker import CallboardBroker
from callboard.catalog.contract import contract_of
from callboard.catalog.queue import Queue, isolated_queues
from callboard.catalog.resolution import resolve_queues
from callboard.storage.connection import Connection
from callboard_worker.definition import Definition
from callboard_worker.runner import Runner
from callboard_worker.slots.loop import LoopSlots
from callboard_worker.slots.slot import Assignment, Host, Outcome, SlotGroup
from callboard_worker.slots.thread import ThreadSlots


class Bodies:
    """What the slots run instead of tasks' functions.

    Of the task `hold` of a queue, each waits for `let_go`; `nap` takes a tenth of a second.

    `started`: task ids, in order. `peak`: the most of a queue that ran at one time, "" for all.
    """

    def __init__(self) -> None:
        self.started: list[str] = []
        self.peak: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._permits = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._all = False

    def let_go(self, count: int = 1) -> None:
        """So many may end."""
        self._permits.release(count)

    def let_all_go(self) -> None:
        """Nobody waits any more."""
        self._all = True

    def invoke(self, of: Assignment, _: Host) -> Outcome:
        self._enter(of)
        if of.name.endswith("hold"):
            self._hold()
        if of.name.endswith("nap"):
            time.sleep(0.1)
        return self._leave(of)

    async def invoke_on_loop(self, of: Assignment, _: Host) -> Outcome:
        self._enter(of)
        if of.name.endswith("block"):
            while not self._all:
                time.sleep(0.02)  # noqa: ASYNC251 - to block the loop is what it is for
        if of.name.endswith("hold"):
            await asyncio.to_thread(self._hold)
        return self._leave(of)

    def _hold(self) -> None:
        while not self._all and not self._permits.acquire(timeout=0.05):
            pass

    def _enter(self, of: Assignment) -> None:
        with self._lock:
            self.started.append(of.task_id)
            for key in ("", of.queue):
                self._running[key] += 1
                self.peak[key] = max(self.peak[key], self._running[key])

    def _leave(self, of: Assignment) -> Outcome:
        with self._lock:
            for key in ("", of.queue):
                self._running[key] -= 1
        return Outcome("completed", result=b"1")


def runner_of(
    connection: Connection,
    bodies: Bodies,
    queues: Mapping[str, Mapping[str, Any]],
    *,
    slots: int = 2,
    names: Sequence[str] = ("quick", "nap", "hold", "block"),
    grace_seconds: float = 5.0,
) -> Runner:
    """A runner that is not started yet, for tasks `QUEUE.NAME`; `queues`: declarations, by precedence."""

    def plain() -> None:
        """Never called."""

    async def coroutine() -> None:
        """Never called."""

    with isolated_queues():
        known: dict[str, Definition] = {}
        for queue, options in queues.items():
            # The limits go into the contracts: those of a declaration end with this block.
            limits: Any = {key: value for key, value in options.items() if key.endswith("_limit")}
            Queue(queue, **{"isolation": "thread", **options})
            function = coroutine if options.get("isolation") == "loop" else plain
            for name in names:
                contract = contract_of(function, name=f"{queue}.{name}", queue=queue, **limits)
                known[contract.name] = Definition(contract, actor=False)
        read = settings.load({"CALLBOARD_WORKER_SLOTS": str(slots)})
        resolved = resolve_queues([one.contract for one in known.values()], read, list(queues))

    def make_slots(form: str, capacity: int, runner: Runner) -> SlotGroup:
        if form == "loop":
            return LoopSlots(capacity, runner, invoke=bodies.invoke_on_loop, grace_seconds=grace_seconds)
        return ThreadSlots(capacity, runner, invoke=bodies.invoke, grace_seconds=grace_seconds)

    return Runner(
        connection,
        CallboardBroker(connection=connection, middleware=[]),
        known,
        resolved,
        slots=slots,
        make_slots=make_slots,
    )
