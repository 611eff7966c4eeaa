"""The messenger: runs Dramatiq's hooks around bodies that run elsewhere, on threads of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import replace

from callboard.broker.broker import CallboardBroker
from callboard.broker.message import HeldMessage
from callboard_worker import hooks
from callboard_worker.held import Held
from callboard_worker.slots import body
from callboard_worker.slots.slot import Assignment, Host, Outcome, SlotGroup

logger = logging.getLogger(__name__)

_THREADS = 8


class Messenger:
    """Between the runner and the slots, for tasks that are Dramatiq messages.

    `finish`: told of each outcome, after its hooks.
    """

    def __init__(self, broker: CallboardBroker, finish: Callable[[Held, Outcome], None]) -> None:
        self._broker = broker
        self._finish = finish
        self._threads = ThreadPoolExecutor(_THREADS, "hooks")
        self._stopping = False
        self._rewrites = hooks.rewrites(broker)
        self._after_ack = hooks.listens(broker, "after_ack") or hooks.listens(broker, "after_nack")

    def send(self, held: Held, message: HeldMessage, group: SlotGroup) -> None:
        """Run the hooks before a body, then give it to `group`, unless they leave it out."""
        self._threads.submit(self._send, held, message, group)

    def ended(self, held: Held, message: HeldMessage, outcome: Outcome) -> None:
        """Run the hooks after a body that `send` started."""
        self._threads.submit(self._ended, held, message, outcome)

    def around(self, message: HeldMessage, assignment: Assignment, host: Host) -> Outcome:
        """Run a body between its hooks, here and now."""
        return hooks.around(
            self._broker, message, lambda: body.execute(self._hooked(assignment, message), host)
        )

    def recorded(self, message: HeldMessage) -> None:
        """Run the hooks after the acknowledgement: its end is recorded."""
        if self._after_ack:
            self._threads.submit(hooks.acknowledged, self._broker, message)
        else:
            message.clear_exception()

    def stopping(self, running: Iterable[tuple[Held, SlotGroup]]) -> None:
        """The worker stops: raise Dramatiq's Shutdown in bodies that want it, now or when they begin.

        `running`: what `send` has sent. For bodies in threads Dramatiq's own middleware does it.
        """
        self._stopping = True
        for held, group in running:
            self._tell_of_stop(held, group)

    def close(self) -> None:
        """Take no more."""
        self._threads.shutdown(wait=False)

    def _tell_of_stop(self, held: Held, group: SlotGroup) -> None:
        if held.message is not None and hooks.hears_shutdown(self._broker, held.message):
            group.stop(held.assignment.task_id, "shutdown", held.assignment.token)

    def _send(self, held: Held, message: HeldMessage, group: SlotGroup) -> None:
        held.hook_context = Context()
        refused = held.hook_context.run(hooks.before, self._broker, message, here=False)
        if refused is not None:
            self._ended(held, message, hooks.skipped(refused))
        elif message.failed:
            self._ended(held, message, Outcome("completed"))
        else:
            held.assignment = self._hooked(held.assignment, message)
            try:
                group.run(held.assignment)
                if self._stopping:
                    self._tell_of_stop(held, group)
            except Exception:
                # Nobody looks at what this thread raises, and the task would be held for ever.
                logger.exception("%s could not be started; it is given back.", held.assignment.task_id)
                self._finish(held, Outcome("lost"))

    def _ended(self, held: Held, message: HeldMessage, outcome: Outcome) -> None:
        try:
            outcome = hooks.kept(outcome)
            if outcome.kind != "lost" and held.hook_context is not None:
                held.hook_context.run(hooks.after, self._broker, message, outcome)
        except BaseException:
            # sys.exit too: it would end nothing here, and nobody would learn how the task ended.
            logger.exception("The hooks of %s failed.", held.assignment.task_id)
        self._finish(held, outcome)

    def _hooked(self, assignment: Assignment, message: HeldMessage) -> Assignment:
        """The assignment with what hooks have made of the message."""
        if not self._rewrites:
            return assignment
        return replace(assignment, message=hooks.rewritten(message) or assignment.message)
