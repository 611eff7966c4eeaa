"""Contracts: what a task promises and asks for, apart from the code that does it."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final, TypedDict, Unpack, get_args

from pydantic import BaseModel

from callboard.catalog.backoff import DEFAULT_BACKOFF, Backoff, Steps, backoff_of
from callboard.catalog.payload import Payload
from callboard.catalog.place import Place, caller_place, place_of
from callboard.catalog.quantities import Duration, duration_ms, size_bytes
from callboard.catalog.queue import DEFAULT_QUEUE, Queue, check_queue_name, queue_named
from callboard.catalog.terms import DEFAULT_PRIORITY, OnLostLease, Terms
from callboard.context import Discard
from callboard.errors import InvalidDeclaration, InvalidPayload, nearest

# `#` opens the catalog's entries that are no tasks.
_NAME = re.compile(r"[^\s#\x00-\x1f\x7f][^\x00-\x1f\x7f]{0,254}")


class Unset(Enum):
    """For what a contract leaves to its queue, where None has a meaning of its own."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "unset"


UNSET: Final = Unset.UNSET

Errors = type[BaseException] | Sequence[type[BaseException]]


class ContractOptions(TypedDict, total=False):
    """The keyword arguments that `@task(…)` and `contract_of` pass on to Contract."""

    queue: str | Queue
    priority: int
    retries: int | None
    delays: Sequence[Duration] | Backoff
    retry_on: Errors
    permanent: Errors
    soft_limit: Duration | None
    hard_limit: Duration | None
    memory_limit: int | str | None
    expires_in: Duration | None
    on_lost_lease: OnLostLease
    tags: Sequence[str]
    version: str
    description: str


_OPTIONS: Final = frozenset(ContractOptions.__annotations__) | {"payload"}


@dataclass(frozen=True, eq=False)
class Contract:
    """A task's name, payload and limits: `Contract("knowledge.parse", payload=Page, queue="parsing")`.

    payload: a Pydantic model, which the body then gets as its one argument; without it the schema is
        the signature of the function that `@task(contract)` decorates.
    queue: a name or a Queue.
    priority: 0 (first) to 9.
    retries: attempts after the first, None for endless; unset: the length of a list of delays, else
        the queue's.
    delays: waits between attempts: a list, whose last one repeats, or `exponential(base=…, cap=…)`.
    retry_on: only these exceptions are retried (default: all). permanent: these never are.
    soft_limit, hard_limit: seconds or timedelta, None for no limit; unset: the queue's.
    memory_limit: bytes or "512MiB"; process slots only.
    expires_in: not started later than this after its submit.
    on_lost_lease: `stop` ends the body once a whole lease has passed without a renewal; `continue` (default)
        when the worker hears that its claim has passed to another.
    tags: put on every task of this name.
    version: the code's, for the catalog.

    Raises InvalidDeclaration for a bad value, with its place.
    """

    name: str
    payload: type[BaseModel] | None = field(default=None, kw_only=True)
    queue: str | Queue = field(default=DEFAULT_QUEUE, kw_only=True)
    priority: int = field(default=DEFAULT_PRIORITY, kw_only=True)
    retries: int | Unset | None = field(default=UNSET, kw_only=True)
    delays: Sequence[Duration] | Backoff = field(default=DEFAULT_BACKOFF, kw_only=True)
    retry_on: Errors = field(default=(), kw_only=True)
    permanent: Errors = field(default=(), kw_only=True)
    soft_limit: Duration | Unset | None = field(default=UNSET, kw_only=True)
    hard_limit: Duration | Unset | None = field(default=UNSET, kw_only=True)
    memory_limit: int | str | None = field(default=None, kw_only=True)
    expires_in: Duration | None = field(default=None, kw_only=True)
    on_lost_lease: OnLostLease = field(default="continue", kw_only=True)
    tags: Sequence[str] = field(default=(), kw_only=True)
    version: str = field(default="", kw_only=True)
    description: str = field(default="", kw_only=True)
    # These three are known once a function is bound; `adapter` at once where there is a model.
    adapter: Payload | None = field(default=None, kw_only=True, repr=False)
    is_async: bool | None = field(default=None, kw_only=True, repr=False)
    place: Place = field(default_factory=caller_place, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidDeclaration(
                f"{self.place}: {self.name!r} cannot name a task: expected 1 to 255 characters, "
                "no control characters, not starting with a space or '#'."
            )
        if self.adapter is None and self.payload is not None:
            object.__setattr__(self, "adapter", Payload.from_model(self.payload))
        check_queue_name(self.queue_name)
        if not (_is_count(self.priority, 0) and self.priority <= 9):
            self._fault("priority", "0 (first) to 9")
        if not (self.retries in (None, UNSET) or _is_count(self.retries, 0)):
            self._fault("retries", "a whole number, or None for endless")
        if self.on_lost_lease not in get_args(OnLostLease):
            self._fault("on_lost_lease", "stop or continue")
        if not _are_words(self.tags):
            self._fault("tags", "a list of words")
        for option in ("retry_on", "permanent"):
            if not _are_errors(getattr(self, option)):
                self._fault(option, "exception classes")
        backoff_of(self.delays)
        soft, hard = self._limit_ms("soft_limit"), self._limit_ms("hard_limit")
        if isinstance(soft, int) and isinstance(hard, int) and soft > hard:
            self._fault("soft_limit", "at most hard_limit")
        if self.memory_limit is not None:
            size_bytes(self.memory_limit, self._told("memory_limit"))
        if self.expires_in is not None:
            duration_ms(self.expires_in, self._told("expires_in"))

    @property
    def queue_name(self) -> str:
        return self.queue.name if isinstance(self.queue, Queue) else self.queue

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the payload object; any object as long as no function is bound."""
        return {"type": "object"} if self.adapter is None else self.adapter.schema

    def terms(self) -> Terms:
        """What holds for this task now: what it leaves open is its queue's, as declared at this moment."""
        queue = queue_named(self.queue_name)
        # A queue may be declared after its tasks, so the answer is kept only as long as that is the same.
        kept: tuple[Queue, Terms] | None = self.__dict__.get("_terms")
        if kept is None or kept[0] is not queue:
            kept = (queue, self._terms_in(queue))
            self.__dict__["_terms"] = kept
        return kept[1]

    def _terms_in(self, queue: Queue) -> Terms:
        soft, hard = self._limit_ms("soft_limit"), self._limit_ms("hard_limit")
        hard_ms = queue.hard_limit_ms if isinstance(hard, Unset) else hard
        soft_ms = queue.soft_limit_ms if isinstance(soft, Unset) else soft
        if soft_ms is not None and hard_ms is not None and soft_ms > hard_ms:
            # One of the two was left open: the limit that was declared wins.
            if isinstance(soft, Unset):
                soft_ms = hard_ms
            else:
                hard_ms = soft_ms
        backoff = backoff_of(self.delays)
        retries = self.retries
        if isinstance(retries, Unset):
            retries = len(backoff.delays_ms) if isinstance(backoff, Steps) else queue.retries
        return Terms(
            name=self.name,
            queue=self.queue_name,
            priority=self.priority,
            retries=retries,
            backoff=backoff,
            soft_limit_ms=soft_ms,
            hard_limit_ms=hard_ms,
            memory_limit_bytes=None
            if self.memory_limit is None
            else size_bytes(self.memory_limit, "memory_limit"),
            expires_in_ms=None if self.expires_in is None else duration_ms(self.expires_in, "expires_in"),
            on_lost_lease=self.on_lost_lease,
            tags=tuple(self.tags),
            retry_on=tuple(_dotted(kind) for kind in _kinds(self.retry_on)),
            permanent=tuple(_dotted(kind) for kind in _kinds(self.permanent)),
        )

    def retryable(self, error: BaseException) -> bool:
        """Whether an attempt that ended with `error` may be followed by another."""
        if isinstance(error, (Discard, InvalidPayload, *_kinds(self.permanent))):
            return False
        wanted = _kinds(self.retry_on)
        return not wanted or isinstance(error, tuple(wanted))

    def bind(self, function: Callable[..., Any], *, lenient: bool = False) -> Contract:
        """This contract with what its function adds: schema, description, sync or async, place.

        Raises InvalidDeclaration when the signature does not fit.
        """
        place = place_of(function)
        if self.payload is not None:
            _takes_one(function, self.name, place)
        return replace(
            self,
            adapter=self.adapter or Payload.from_function(function, lenient=lenient),
            is_async=inspect.iscoroutinefunction(function),
            description=self.description or _first_paragraph(function),
            version=self.version or _version_of(function),
            place=place,
        )

    def _limit_ms(self, option: str) -> int | Unset | None:
        value: Duration | Unset | None = getattr(self, option)
        return value if value is None or isinstance(value, Unset) else duration_ms(value, self._told(option))

    def _told(self, option: str) -> str:
        return f"{self.place}: task {self.name!r} {option}"

    def _fault(self, option: str, expected: str) -> None:
        raise InvalidDeclaration(f"{self._told(option)}: expected {expected}; got {getattr(self, option)!r}.")


def contract_of(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    lenient: bool = False,
    **options: Unpack[ContractOptions],
) -> Contract:
    """The contract of a function: its name unless another is given, its signature as the schema.

    `lenient`: see `Payload.from_function`; for functions that were written for another platform.
    Raises InvalidDeclaration.
    """
    place = place_of(function)
    for option in options:
        if option not in _OPTIONS:
            raise InvalidDeclaration(
                f"{place}: a task has no option {option!r}.{nearest(option, _OPTIONS)} "
                f"There are {', '.join(sorted(_OPTIONS))}."
            )
    return Contract(name or function.__name__, place=place, **options).bind(function, lenient=lenient)


def _kinds(errors: Errors) -> tuple[type[BaseException], ...]:
    return (errors,) if isinstance(errors, type) else tuple(errors)


def _dotted(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _are_words(tags: Any) -> bool:
    return not isinstance(tags, str) and all(isinstance(tag, str) and tag for tag in tags)


def _are_errors(errors: Any) -> bool:
    kinds = errors if isinstance(errors, tuple | list | set | frozenset) else (errors,)
    return all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds)


def _takes_one(function: Callable[..., Any], name: str, place: Place) -> None:
    parameters = inspect.signature(function).parameters.values()
    required = [
        p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    positional = [p for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
    if len(required) > 1 or not positional or any(p.kind is p.KEYWORD_ONLY for p in required):
        raise InvalidDeclaration(
            f"{place}: task {name!r} has a payload model, so its function takes that as its one argument."
        )


def _first_paragraph(function: Callable[..., Any]) -> str:
    text = inspect.getdoc(function) or ""
    return " ".join(text.split("\n\n", 1)[0].split())


def _version_of(function: Callable[..., Any]) -> str:
    package = sys.modules.get(function.__module__.partition(".")[0]) if function.__module__ else None
    version = getattr(package, "__version__", "")
    return version if isinstance(version, str) else ""
