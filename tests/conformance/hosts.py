"""The two workers on which Dramatiq's tests run: its own, and our runner with thread slots."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import dramatiq
from dramatiq import Middleware

from callboard import clock
from callboard.catalog.resolution import ResolvedQueue
from callboard_worker import hooks
from callboard_worker.definition import Definition, of_actor
from callboard_worker.runner import Runner
from callboard_worker.slots.thread import ThreadSlots

#: The form that the running test asked for; see the fixture `host`.
NAMES = ("worker", "runner")
_choice: ContextVar[str] = ContextVar("host", default="worker")


def choose(name: str) -> None:
    """What `chosen` makes from now on."""
    _choice.set(name)


def chosen(broker: Any, **options: Any) -> Any:
    """A worker, not started, with the options of dramatiq.Worker."""
    return (RunnerHost if _choice.get() == "runner" else dramatiq.Worker)(broker, **options)


def boot(broker: Any) -> None:
    """What happens to a broker in a fresh worker process."""
    if _choice.get() == "runner":
        hooks.process_booted(broker)
    else:
        broker.emit_after("process_boot")


class RunnerHost:
    """Our runner behind as much of dramatiq.Worker's face as its tests look at.

    Their actors are declared while the worker runs; ours knows its queues from the start. So each queue that
    is declared gets a runner of its own.
    """

    def __init__(
        self,
        broker: Any,
        *,
        queues: set[str] | None = None,
        worker_timeout: int = 1000,
        worker_threads: int = 8,
    ) -> None:
        self.broker = broker
        self.worker_timeout = worker_timeout
        self.worker_threads = worker_threads
        self.consumers: dict[str, Runner] = {}
        self.known: dict[str, Definition] = {}
        self._only = queues
        self._paused = False

    def start(self) -> None:
        """Serve every queue that is declared, now or later."""
        self.broker.add_middleware(_Declarations(self))

    def stop(self) -> None:
        """Let the running tasks end."""
        for runner in self.consumers.values():
            assert runner.drain(60), "something is still held"

    def join(self) -> None:
        """Wait until nothing is held."""
        for runner in self.consumers.values():
            while runner._ledger.by_token:
                clock.sleep(0.005)

    def pause(self) -> None:
        """Claim nothing more, and let what runs end."""
        self._paused = True
        for runner in self.consumers.values():
            self._hush(runner)
            # A turn that began before would claim what is sent next.
            with runner.pump._turning:
                pass
        self.join()

    def resume(self) -> None:
        """Claim again."""
        self._paused = False
        for queue, runner in self.consumers.items():
            del runner.room
            runner.pump.wake(queue)

    def serve(self, queue: str) -> None:
        """A runner for `queue`."""
        if queue in self.consumers or (self._only and queue not in self._only):
            return
        resolved = ResolvedQueue(
            name=queue,
            isolation="thread",
            slots=self.worker_threads,
            soft_limit_ms=None,
            hard_limit_ms=None,
            retries=None,
            lease_ms=20_000,
            wait_objective_ms=None,
            retention_ms=None,
            tasks=(),
        )
        runner = self.consumers[queue] = Runner(
            self.broker.connection,
            self.broker,
            self.known,
            {queue: resolved},
            slots=self.worker_threads,
            make_slots=lambda form, capacity, owner: ThreadSlots(capacity, owner, invoke=owner.invoke),
        )
        if self._paused:
            self._hush(runner)
        runner.start()

    def _hush(self, runner: Runner) -> None:
        runner.room = lambda queue: 0  # type: ignore[method-assign]


class _Declarations(Middleware):
    def __init__(self, host: RunnerHost) -> None:
        self.host = host

    def after_declare_actor(self, broker: Any, actor: Any) -> None:
        self.host.known[actor.actor_name] = of_actor(actor, broker)

    def after_declare_queue(self, broker: Any, queue_name: str) -> None:
        self.host.serve(queue_name)
