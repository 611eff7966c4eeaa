"""The runner: one worker process. It claims tasks, gives them to slots, and records how they end."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Mapping

from prometheus_client import Counter, Histogram

from callboard import clock
from callboard.broker import outbox, turn
from callboard.broker.broker import CallboardBroker
from callboard.broker.ear import Ear
from callboard.broker.guest import worker_id
from callboard.broker.keeper import Keeper
from callboard.broker.turn import Answer, Claim, Ending
from callboard.broker.waiter import Waiter
from callboard.catalog.presence import Presence
from callboard.catalog.resolution import ResolvedQueue
from callboard.errors import CallboardError
from callboard.maintenance.courier import Deliver
from callboard.maintenance.fate import Fates, by_note
from callboard.maintenance.loops import Loops
from callboard.maintenance.policy import Policy
from callboard.metrics import Metrics
from callboard.metrics import metrics as process_metrics
from callboard.storage.connection import Connection
from callboard_worker.definition import Definition
from callboard_worker.dispatcher import Dispatcher, Lane, Pool, away_ms
from callboard_worker.held import Held, Ledger
from callboard_worker.intake import take
from callboard_worker.messenger import Messenger
from callboard_worker.notes import NoteWriter
from callboard_worker.pump import Finished, Pump
from callboard_worker.settlement import ending_of
from callboard_worker.shown import shown
from callboard_worker.slots import body
from callboard_worker.slots.slot import Assignment, Host, Listener, Outcome, SlotGroup

logger = logging.getLogger(__name__)

#: Makes the slots of one form: (isolation, capacity, the runner as listener) -> the group.
MakeSlots = Callable[[str, int, "Runner"], SlotGroup]


class Runner(Listener):
    """A worker for `queues`, in order of precedence.

    Parameters:
        connection: shared by its threads.
        broker: whose actors and middleware are honoured.
        definitions: what it knows how to run.
        slots: slots for processes and threads together.
        make_slots: makes a form's slots.
        policy, deliver, fates: for the maintenance that it shares.
        host: where it runs; by default the machine's name.
    """

    #: Why bodies are ended, or go back unstarted, once it drains.
    stop_cause = "shutdown"

    def __init__(
        self,
        connection: Connection,
        broker: CallboardBroker,
        definitions: Mapping[str, Definition],
        queues: Mapping[str, ResolvedQueue],
        *,
        slots: int,
        make_slots: MakeSlots,
        policy: Policy | None = None,
        deliver: Deliver = outbox.deliver,
        fates: Fates = by_note,
        host: str | None = None,
        metrics: Metrics = process_metrics,
    ) -> None:
        self.connection, self.broker, self.definitions = connection, broker, definitions
        self.host = host or socket.gethostname()
        self.id = worker_id(self.host)
        self.slots, self.metrics = slots, metrics
        self._queues = dict(queues)
        self.since = clock.now_ms()
        self._ledger = Ledger()
        self._ending_lock = threading.Lock()
        self._started = self._draining = False
        self._messenger = Messenger(broker, self._finish)
        self._groups: dict[str, SlotGroup] = {}
        self._meters: dict[tuple[str, str, str], tuple[Counter, Histogram, Histogram]] = {}
        self._pools = [shared := Pool(slots)]
        lanes: dict[str, Lane] = {}
        for name, queue in queues.items():
            form = queue.isolation
            loop = form == "loop"
            capacity = sum(q.slots for q in queues.values() if q.isolation == "loop") if loop else slots
            if form not in self._groups:
                self._groups[form] = make_slots(form, capacity, self)
            pool = Pool(queue.slots) if loop else shared
            self._pools += [pool] if loop else []
            lanes[name] = Lane(queue, self._groups[form], pool)
        self.dispatcher = Dispatcher(lanes, self._start)
        self.pump = Pump(connection, self.id, [(n, q.lease_ms) for n, q in queues.items()], self)
        self._notes = NoteWriter(connection, self._ledger)
        shortest = min([q.lease_ms for q in queues.values()], default=20_000)
        self.keeper = Keeper(
            connection, lease_ms=self._lease_ms, shown=self.presence, on_word=self.told_to_stop
        )
        self._shortest_lease_ms = shortest
        self.loops = Loops(
            connection,
            self.id,
            policy=policy or Policy(lease_seconds=shortest / 1000),
            queues=lambda: list(self._queues),
            deliver=deliver,
            fates=fates,
        )
        self._ear = Ear(connection, self.id, list(queues), self.told_to_stop)
        self._waiters = {name: Waiter(connection, name, self.pump.wake) for name in queues}

    def start(self) -> None:
        """Warm up the slots, then claim. Raises what a slot group raises for modules that do not import."""
        self.broker.emit_before("worker_boot", self)
        for group in self._groups.values():
            group.start()
        self.keeper.start(self._shortest_lease_ms)
        self._notes.start()
        self._ear.start()
        for waiter in self._waiters.values():
            waiter.start()
        self.loops.start()
        self.pump.start()
        self._started = True
        self.broker.emit_after("worker_boot", self)

    def live(self) -> bool | str:
        """Whether its loops tick, once it has started, or what is wrong; says nothing about Redis."""
        # A turn may wait for its socket time-out with resends, a renewal for one of each queue.
        late = clock.monotonic() - 60.0
        wedged = [why for group in self._groups.values() if (why := group.wedged())]
        ticking = self.pump.ticked > late and self.keeper.ticked > late
        return not self._started or (wedged[0] if wedged else ticking)

    def ready(self) -> bool:
        """Whether Redis answers and a slot of each form is up."""
        return (
            not self._draining
            and not self.pump.failing
            and all(group.ready() for group in self._groups.values())
        )

    # What the pump asks and tells.

    def room(self, queue: str) -> int:
        """How many tasks of a queue may be claimed now."""
        if self._groups[self._queues[queue].isolation].blocked():
            return 0
        room = self.dispatcher.room(queue)
        # Ends that Redis did not take count as held, or memory would grow through an outage.
        return max(0, room - self.pump.unrecorded) if self.pump.failing else room

    @property
    def waiting(self) -> int:
        """Tasks claimed and not started."""
        return self.dispatcher.waiting

    def claimed(self, queue: str, claims: list[Claim]) -> None:
        """Tasks that are ours now: decode, keep their leases, start them."""
        ours: list[Held] = []
        for claim in claims:
            if claim.token in self._ledger.by_token:
                continue  # the answer to a claim that was sent twice
            taken = take(queue, claim, self.definitions)
            self.keeper.hold(queue, claim.local, claim.token)
            if isinstance(taken, Held):
                self._ledger.by_token[claim.token] = taken
                ours.append(taken)
            else:
                self.pump.done(queue, Finished(taken, None))
        if self._draining:
            for held in ours:
                self._release(held, self.stop_cause)
            return
        for held in self.dispatcher.accept(queue, ours):
            self._end(held, turn.snooze(*held.claim[:2], cause="has to run alone", delay_ms=away_ms()))

    def quiet(self, queue: str) -> None:
        """Nothing is ready: listen."""
        self._waiters[queue].arm()

    def tidy(self) -> None:
        """Give back what waits too long for a slot here."""
        for held in self.dispatcher.overdue():
            self._release(held, "no free slot")

    def recorded(self, queue: str, finished: Finished, answer: Answer) -> None:
        """An end that Redis has answered: let go of the task."""
        ending, held = finished.ending, finished.held
        self.keeper.drop(queue, ending.local, ending.token)
        self._ledger.by_token.pop(ending.token, None)
        if answer == "lost":
            self.metrics.lease_losses.labels(queue).inc()
            logger.warning("The lease of %s_%s was lost; its outcome is refused.", queue, ending.local)
        elif ending.followers:
            self.loops.nudge(queue)
        if held is not None and held.message is not None:
            self._messenger.recorded(held.message)

    # Bodies.

    def _start(self, lane: Lane, held: Held) -> None:
        held.running = True
        held.started_ms = clock.now_ms()
        if held.message is not None and lane.queue.isolation != "thread":
            self._messenger.send(held, held.message, lane.group)
        else:
            lane.group.run(held.assignment)

    def invoke(self, assignment: Assignment, host: Host) -> Outcome:
        """Runs a body in a thread slot, between its hooks."""
        held = self._ledger.by_token.get(assignment.token)
        if held is None or held.message is None:
            return body.execute(assignment, host)
        return self._messenger.around(held.message, assignment, host)

    # What slots tell, from their threads.

    def logged(self, assignment: Assignment, level: str, text: str) -> None:
        """A line of a task's log."""
        held = self._ledger.by_token.get(assignment.token)
        if held is not None:
            held.tell().log(level, text)
            self._notes.stir()

    def progressed(self, assignment: Assignment, blob: bytes) -> None:
        """A task's progress."""
        held = self._ledger.by_token.get(assignment.token)
        if held is not None:
            held.tell().progress(blob)
            self._notes.stir()

    def finished(self, slot: str, assignment: Assignment, outcome: Outcome) -> None:
        """A body has ended."""
        held = self._ledger.by_token.get(assignment.token)
        if held is None:
            logger.error("Slot %s ended %s, which nobody holds.", slot, assignment.task_id)
            return
        threaded = self._queues[held.queue].isolation == "thread"
        if held.message is not None and not threaded:
            self._messenger.ended(held, held.message, outcome)
        else:
            self._finish(held, outcome)

    def _finish(self, held: Held, outcome: Outcome) -> None:
        try:
            ending = ending_of(held, outcome, held.told.pending() if held.told else None, self.stop_cause)
        except Exception as error:
            logger.exception("The outcome of %s cannot be encoded.", held.assignment.task_id)
            told = turn.failure(type(error).__name__, str(error), retryable=False)
            claim = held.claim
            ending = turn.failed(claim.local, claim.token, outcome="failed", reason="permanent", error=told)
        self._measure(held, outcome)
        if ending is None:
            self.keeper.drop(held.queue, held.claim.local, held.claim.token)
            self._ledger.by_token.pop(held.claim.token, None)
        else:
            self._end(held, ending)
        self.dispatcher.ended(held, outcome.run_ms)
        self.pump.look()

    def _end(self, held: Held, ending: Ending) -> None:
        """Decide a held task's end, once."""
        with self._ending_lock:
            if held.ended:
                return
            held.ended = True
        self.pump.done(held.queue, Finished(ending, held))

    def _release(self, held: Held, cause: str) -> None:
        notes = held.told.pending() if held.told else None
        local, token = held.claim.local, held.claim.token
        self._end(held, turn.release(local, token, cause=cause, notes=notes, started=held.running))

    def _measure(self, held: Held, outcome: Outcome) -> None:
        key = (held.queue, held.assignment.name, outcome.kind)
        meters = self._meters.get(key)
        if meters is None:
            # The lookup of a labelled metric costs more than its update.
            meters = self._meters[key] = (
                self.metrics.tasks_finished.labels(*key),
                self.metrics.task_run_seconds.labels(held.queue),
                self.metrics.task_wait_seconds.labels(held.queue),
            )
        meters[0].inc()
        meters[1].observe(outcome.run_ms / 1000)
        if held.wait_ms is not None and held.wait_ms >= 0:
            meters[2].observe(held.wait_ms / 1000)

    # Stops.

    def told_to_stop(self, queue: str, local: str, token: str, word: str) -> None:
        """A renewal or the control channel says that a held task must not go on."""
        held = self._ledger.find(local, token)
        if held is None and word == "lost":
            self.keeper.drop(queue, local, token)  # its end was recorded while its renewal was under way
        if held is None or held.ended:
            return
        if word == "stale" and held.definition.terms.on_lost_lease != "stop":
            return
        word = "lost" if word == "stale" else word
        if word == "lost" and held.asked != "lost":
            self.metrics.lease_losses.labels(queue).inc()
            logger.warning("The lease of %s was lost; its body is stopped.", held.assignment.task_id)
            self.keeper.drop(queue, local, token)
        held.asked = word
        if self.dispatcher.withdraw(held):
            self._end_waiting(held, word)
        else:
            self._groups[self._queues[queue].isolation].stop(held.assignment.task_id, word, token)  # type: ignore[arg-type]

    def _end_waiting(self, held: Held, word: str) -> None:
        if word == "lost":
            self._ledger.by_token.pop(held.claim.token, None)
            return
        # It never started: the release gives the attempt back, and the store turns it into a cancel.
        self._release(held, "cancel")

    def drain(self, seconds: float) -> bool:
        """Stop claiming, give back the unstarted, let the running end for `seconds`, give back the rest.

        True when nothing is held any more.
        """
        self.broker.emit_before("worker_shutdown", self)
        self._draining = True
        self.keeper.call()
        for waiter in self._waiters.values():
            waiter.stop()
        for held in self.dispatcher.drain():
            self._release(held, self.stop_cause)
        running = [(held, self._queues[held.queue].isolation) for held in self._ledger.running()]
        self._messenger.stopping((held, self._groups[form]) for held, form in running if form != "thread")
        self.pump.look()
        self._until_idle(clock.monotonic() + seconds)
        # First the bodies end, then their tasks go back: nobody else may run one beside us.
        for group in self._groups.values():
            group.close(0)
        for held in list(self._ledger.by_token.values()):
            if not held.ended:
                self._release(held, self.stop_cause)
        flushed = self.pump.stop(timeout=max(5.0, min(seconds, 15.0)))
        self._ear.stop()
        self._notes.stop()
        self.loops.stop()
        self.keeper.stop()
        for name in self._queues:
            try:
                self.connection.run(turn.forget(self.connection.keys, name, self.id))
            except CallboardError:
                break
        self.broker.emit_after("worker_shutdown", self)
        self._messenger.close()
        # What a turn has on its way is neither recorded nor counted by the pump.
        return flushed and not self._ledger.by_token

    def hurry(self) -> None:
        """Wait for running tasks no longer."""
        self._hurried = True

    _hurried = False

    def _until_idle(self, deadline: float) -> None:
        while self._ledger.by_token and not self._hurried:
            if clock.monotonic() >= deadline or (self.dispatcher.busy == 0 and self.pump.failing):
                return
            clock.sleep(0.02)

    # What is shown.

    def presence(self) -> Presence:
        """This worker as others see it."""
        return shown(
            self.id,
            self.host,
            self.since,
            self.dispatcher,
            self._ledger,
            slots=sum(pool.capacity for pool in self._pools),
            draining=self._draining,
            metrics=self.metrics,
        )

    def in_hand(self) -> list[int]:
        """When each task that runs was started, ms since 1970."""
        return [held.started_ms for held in self._ledger.running() if not held.ended]

    def _lease_ms(self, queue: str) -> int:
        return self._queues[queue].lease_ms
