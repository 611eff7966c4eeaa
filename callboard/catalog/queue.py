"""Queues: declared once, with limits for all their tasks; an undeclared one has the defaults."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field
from functools import lru_cache
from typing import Any, Final, get_args

from callboard.catalog.place import Place, caller_place
from callboard.catalog.quantities import Duration, duration_ms
from callboard.catalog.terms import (
    DEFAULT_HARD_LIMIT_MS,
    DEFAULT_RETRIES,
    DEFAULT_SOFT_LIMIT_MS,
    Isolation,
)
from callboard.errors import InvalidDeclaration

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}", re.ASCII)

DEFAULT_QUEUE: Final = "default"
#: Shorter ones would keep a worker busy with renewals alone.
SHORTEST_LEASE_MS: Final = 200


@dataclass(frozen=True)
class Queue:
    """A queue's declaration, at the top of a module: `Queue("reports", slots=2, soft_limit=60)`.

    isolation: `process` (a child that can be killed), `thread` or `loop` (async tasks only); None:
        `loop` when all its tasks are `async def`, else `process`.
    slots: tasks of this queue that one worker runs at once; None: as many as the worker has.
    soft_limit, hard_limit: for tasks that name none; seconds or timedelta, None for no limit.
    retries: for tasks that name none; None for endless.
    wait_objective: how long a task should wait at most; sizes the queue's demand.
    lease: how long a claim holds without a renewal; None: the worker's setting.
    retention: how long finished tasks are kept; None: the settings'.

    Raises InvalidDeclaration for a bad value, and for a second declaration that differs (with both places).
    """

    name: str
    isolation: Isolation | None = field(default=None, kw_only=True)
    slots: int | None = field(default=None, kw_only=True)
    soft_limit: Duration | None = field(default=DEFAULT_SOFT_LIMIT_MS / 1000, kw_only=True)
    hard_limit: Duration | None = field(default=DEFAULT_HARD_LIMIT_MS / 1000, kw_only=True)
    retries: int | None = field(default=DEFAULT_RETRIES, kw_only=True)
    wait_objective: Duration | None = field(default=None, kw_only=True)
    lease: Duration | None = field(default=None, kw_only=True)
    retention: Duration | None = field(default=None, kw_only=True)
    declare: InitVar[bool] = field(default=True, kw_only=True)
    place: Place = field(init=False, compare=False, repr=False)

    def __post_init__(self, declare: bool) -> None:
        object.__setattr__(self, "place", caller_place())
        check_queue_name(self.name)
        if self.isolation not in (None, *get_args(Isolation)):
            self._fault("isolation", "process, thread or loop")
        if not (self.slots is None or _is_count(self.slots, 1)):
            self._fault("slots", "a whole number above 0")
        if not (self.retries is None or _is_count(self.retries, 0)):
            self._fault("retries", "a whole number, or None for endless")
        soft, hard = self.soft_limit_ms, self.hard_limit_ms
        if soft is not None and hard is not None and soft > hard:
            # A lone hard limit below the default soft one is an everyday wish, not a fault.
            if self.soft_limit != DEFAULT_SOFT_LIMIT_MS / 1000:
                self._fault("soft_limit", "at most hard_limit")
            object.__setattr__(self, "soft_limit", hard / 1000)
        _ = (self.wait_objective_ms, self.retention_ms)
        if self.lease_ms is not None and self.lease_ms < SHORTEST_LEASE_MS:
            self._fault(
                "lease", f"{SHORTEST_LEASE_MS / 1000:g} s or more, as it is renewed four times in that"
            )
        if declare:
            _declare(self)

    @property
    def soft_limit_ms(self) -> int | None:
        return self._ms("soft_limit")

    @property
    def hard_limit_ms(self) -> int | None:
        return self._ms("hard_limit")

    @property
    def wait_objective_ms(self) -> int | None:
        return self._ms("wait_objective")

    @property
    def lease_ms(self) -> int | None:
        return self._ms("lease")

    @property
    def retention_ms(self) -> int | None:
        return self._ms("retention")

    def _ms(self, name: str) -> int | None:
        value = getattr(self, name)
        return None if value is None else duration_ms(value, f"{self.place}: Queue({self.name!r}) {name}")

    def _fault(self, name: str, expected: str) -> None:
        value: Any = getattr(self, name)
        raise InvalidDeclaration(
            f"{self.place}: Queue({self.name!r}) {name}: expected {expected}; got {value!r}."
        )

    def document(self) -> dict[str, Any]:
        """The published form, durations in ms."""
        return {
            "isolation": self.isolation,
            "slots": self.slots,
            "soft_limit_ms": self.soft_limit_ms,
            "hard_limit_ms": self.hard_limit_ms,
            "retries": self.retries,
            "wait_objective_ms": self.wait_objective_ms,
            "lease_ms": self.lease_ms,
            "retention_ms": self.retention_ms,
        }


def check_queue_name(name: Any) -> str:
    """`name`, if it can name a queue; else raises InvalidDeclaration."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidDeclaration(
            f"{name!r} cannot name a queue: expected a letter and up to 63 letters, digits, '.', '_', '-'."
        )
    return name


_lock = threading.Lock()
_declared: dict[str, Queue] = {}


def _unlock() -> None:
    # Whichever thread was declaring at a fork is not in the child, which would wait for it for ever.
    global _lock  # noqa: PLW0603 - the one lock of this module
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_unlock)


def _declare(queue: Queue) -> None:
    with _lock:
        former = _declared.get(queue.name)
        # The same place again is a module loaded anew (a reload, `__main__` imported by its name).
        if former is not None and former != queue and former.place != queue.place:
            raise InvalidDeclaration(
                f"Queue {queue.name!r} is declared twice and differently: {former.place} has {former!r}, "
                f"{queue.place} has {queue!r}."
            )
        _declared[queue.name] = queue


def queue_named(name: str) -> Queue:
    """The declared queue, or one with the defaults. Raises InvalidDeclaration for an impossible name."""
    return _declared.get(name) or _undeclared(name)


@lru_cache(maxsize=1024)
def _undeclared(name: str) -> Queue:
    return Queue(name, declare=False)


def declared_queues() -> dict[str, Queue]:
    """Every declared queue by name."""
    return dict(_declared)


@contextmanager
def isolated_queues() -> Iterator[None]:
    """Begin with no declarations and bring back those of before at the end; for tests."""
    before = dict(_declared)
    _declared.clear()
    try:
        yield
    finally:
        _declared.clear()
        _declared.update(before)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
