"""The timekeeper: submits what the timetable says, when it says so.

No leader is needed: a firing's task id derives from schedule and time, so two schedulers that submit it
submit one task; and the pointer moves by compare-and-set after the submit, so no firing is lost in between.
Whether a firing has happened is told by the pointer alone, never by its task, which may have been pruned.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from callboard import clock
from callboard.catalog import published
from callboard.catalog import timetable as store
from callboard.catalog.published import Catalog
from callboard.catalog.timetable import Entry, ScheduleNotFound
from callboard.errors import CallboardError, Invalid, Refused, StoreUnavailable, Unconfirmed
from callboard.metrics import Metrics
from callboard.metrics import metrics as process_metrics
from callboard.storage.connection import Connection
from callboard.submit import Submission, SubmitLimits, submit
from callboard_scheduler import timetable

logger = logging.getLogger(__name__)

#: Edits are seen, and Redis's clock compared, this often.
TICK_SECONDS = 1.0
#: Entries handled before Redis's clock is asked again.
STEP = 200
#: A tick that takes longer is cut short, or the liveness probe would take it for standing still.
LONGEST_TICK_SECONDS = 5.0
DEFAULT_LIMITS = SubmitLimits()
_CATALOG_SECONDS = 30.0
_RELOAD_SECONDS = 300.0
#: A firing that could not be submitted is tried again after so long.
_RETRY_MS = 2_000
#: What was read longer ago is read again before anything is submitted for it.
_STALE_SECONDS = 5.0


class Timekeeper:
    """Fires schedules. One thread calls `tick` in a loop; nothing is lost when it stops between two calls.

    name: this scheduler's own. limits: what its submits are refused for.
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        *,
        limits: SubmitLimits = DEFAULT_LIMITS,
        metrics: Metrics = process_metrics,
    ) -> None:
        self._connection = connection
        self._name = name
        self._limits = limits
        self._metrics = metrics
        self._entries: dict[str, Entry] = {}
        self._changes: int | None = None
        self._reload_due = 0.0
        self._catalog = Catalog()
        self._catalog_due = 0.0
        self._not_before: dict[str, int] = {}
        self._told: set[str] = set()

    def tick(self) -> float:
        """Fire what is due; seconds until there is more to do, at most 1. Raises StoreUnavailable."""
        asked = clock.monotonic()
        now_ms, changes = self._connection.run(store.tick(self._connection.keys))
        if changes != self._changes or asked >= self._reload_due:
            self._load()
            self._changes, self._reload_due = changes, asked + _RELOAD_SECONDS
        wanting = [entry.id for entry in self._entries.values() if self._wants(entry, now_ms)]
        # What has been tried in vain comes after what has not: with no replica to confirm them, each takes a
        # second, and the first ones would be all that is ever tried.
        wanting.sort(key=lambda name: self._not_before.get(name, 0))
        for schedule_id in wanting[:STEP]:
            self._handle(schedule_id, now_ms)
            if clock.monotonic() - asked > LONGEST_TICK_SECONDS:
                return 0.0
        if len(wanting) > STEP:
            return 0.0
        soonest = min(
            (
                max(entry.fire_ms, self._not_before.get(entry.id, 0))
                for entry in self._entries.values()
                if entry.is_planned and entry.fire_ms is not None and not entry.schedule.paused
            ),
            default=None,
        )
        if soonest is None:
            return TICK_SECONDS
        elapsed = clock.monotonic() - asked
        return min(TICK_SECONDS, max(0.0, (soonest - now_ms) / 1000 - elapsed))

    def _load(self) -> None:
        found = self._connection.run(store.read(self._connection.keys))
        self._entries = dict(found.entries)
        self._not_before = {name: at for name, at in self._not_before.items() if name in self._entries}
        for name in found.unreadable:
            self._tell(name, "Schedule %s cannot be read by this release; it does not fire here.", name)

    def _wants(self, entry: Entry, now_ms: int) -> bool:
        if self._not_before.get(entry.id, 0) > now_ms:
            return False
        if not entry.is_planned:
            return True
        return not entry.schedule.paused and entry.fire_ms is not None and entry.fire_ms <= now_ms

    def _handle(self, schedule_id: str, now_ms: int) -> None:
        try:
            self._advance(schedule_id, now_ms)
        except ScheduleNotFound:
            self._entries.pop(schedule_id, None)
        except (Refused, Unconfirmed) as error:
            # Its pointer stays; what is stored already, unconfirmed, is submitted once more: a no-op. Once
            # the grace is over, the misfire policy says what becomes of it.
            self._not_before[schedule_id] = now_ms + _RETRY_MS
            self._tell(schedule_id, "Schedule %s cannot fire now: %s", schedule_id, error)
        except StoreUnavailable:
            raise
        except Exception as error:
            self._not_before[schedule_id] = now_ms + 30 * _RETRY_MS
            trace = None if isinstance(error, CallboardError) else error
            logger.error("Schedule %s cannot fire: %s", schedule_id, error, exc_info=trace)
        else:
            self._not_before.pop(schedule_id, None)
            self._told.discard(schedule_id)

    def _advance(self, schedule_id: str, now_ms: int) -> None:
        """Plan or fire one schedule as it is in Redis now, whatever was read before."""
        read_at = clock.monotonic()
        entry = self._connection.run(store.get(self._connection.keys, schedule_id))
        self._entries[schedule_id] = entry
        if not entry.is_planned:
            self._move(entry, timetable.plan(entry, now_ms))
            return
        due = timetable.due(entry, now_ms)
        if due is None:
            return
        if due.missed:
            logger.warning(
                "Schedule %s missed firings; its policy is %s.", schedule_id, entry.schedule.misfire
            )
        after = replace(entry, last_nominal_ms=due.nominal_ms[-1] if due.nominal_ms else entry.nominal_ms)
        submissions: list[Submission] = []
        if due.nominal_ms:
            submissions = [self._submission(entry, nominal) for nominal in due.nominal_ms]
            if clock.monotonic() - read_at > _STALE_SECONDS:
                return  # a frozen process woke up: what it has read may have fired long ago
            if self._submit(entry, submissions):
                after = replace(after, last_fired_ms=now_ms, last_task_id=submissions[-1].task_id)
            else:
                submissions = []
        if self._move(entry, timetable.point(after, due.next_ms)):
            for submission in submissions:
                self._metrics.tasks_submitted.labels(submission.queue, submission.name).inc()
                logger.info("Schedule %s fired: task %s.", schedule_id, submission.task_id)

    def _submit(self, entry: Entry, submissions: list[Submission]) -> bool:
        """Whether the firings were accepted; raises Refused when they may be, later."""
        try:
            answers = self._connection.run(submit(self._connection.keys, submissions, self._limits))
        except Invalid as error:
            # The payload can never be accepted: the pointer goes on, or it would be tried for ever.
            logger.error("Schedule %s: a firing was dropped: %s", entry.id, error)
            return False
        for answer in answers:
            if answer.problem is not None:
                raise answer.problem
        return True

    def _move(self, before: Entry, after: Entry) -> bool:
        """Whether it was us who moved the pointer; a look at Redis follows when it was not."""
        after = replace(after, moved_by=self._name)
        moved = self._connection.run(store.advance(self._connection.keys, before, after))
        if moved is not None:
            self._entries[before.id] = moved
            return True
        self._entries[before.id] = self._connection.run(store.get(self._connection.keys, before.id))
        return False

    def _submission(self, entry: Entry, nominal_ms: int) -> Submission:
        schedule = entry.schedule
        found = self._terms(schedule.task)
        if found is None:
            queue = schedule.queue
            if not queue:
                raise _NobodyKnows(schedule.task)
            terms = Submission(name=schedule.task, queue=queue)
        else:
            queue = schedule.queue or found.queue
            terms = Submission(
                name=schedule.task,
                queue=queue,
                priority=found.terms.priority,
                expires_in_ms=found.terms.expires_in_ms or 0,
                max_attempts=found.terms.max_attempts,
                tags=found.terms.tags,
            )
        return replace(
            terms,
            payload=schedule.payload,
            task_id=timetable.task_id(queue, schedule.id, nominal_ms),
            schedule_id=schedule.id,
            owner=schedule.owner,
            priority=terms.priority if schedule.priority is None else schedule.priority,
            tags=(*terms.tags, *(tag for tag in schedule.tags if tag not in terms.tags)),
        )

    def _terms(self, task: str) -> published.PublishedTask | None:
        now = clock.monotonic()
        if now >= self._catalog_due:
            self._catalog = self._connection.run(published.read(self._connection.keys))
            self._catalog_due = now + _CATALOG_SECONDS
        if task not in self._catalog.tasks:
            self._catalog_due = min(self._catalog_due, now + TICK_SECONDS)
        return self._catalog.tasks.get(task)

    def _tell(self, about: str, message: str, *args: object) -> None:
        """Once for each trouble, not once a second."""
        if about not in self._told:
            self._told.add(about)
            logger.warning(message, *args)


class _NobodyKnows(Refused):
    """The schedule names no queue, and no worker has published its task (yet)."""

    code = "unknown-task"

    def __init__(self, task: str) -> None:
        super().__init__(f"no worker has published a task {task!r} yet, and the schedule names no queue.")
