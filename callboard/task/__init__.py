"""The decorator: makes a function a task that can be submitted, and keeps it in this process's registry.

`from callboard import task` is the decorator; the others come by `from callboard.task import …`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, Unpack, cast, overload

from pydantic import BaseModel
from typing_extensions import TypeVar

from callboard.catalog.contract import Contract, ContractOptions, contract_of
from callboard.context import current_or_none
from callboard.errors import Invalid, InvalidDeclaration, InvalidPayload
from callboard.handle import TaskHandle
from callboard.settings import Settings
from callboard.storage import default
from callboard.submit import Blank, Submission, SubmitLimits, Submitted, limits_of, submit
from callboard.task.options import SubmitOptions as SubmitOptions
from callboard.task.options import submission as submission
from callboard.task.options import submission_by

if TYPE_CHECKING:
    from callboard.catalog.terms import Terms

P = ParamSpec("P")
R = TypeVar("R", default=Any)
# What a plain call gives: R, or a coroutine of it.
V = TypeVar("V", default=R)


class Interceptor(Protocol):
    """Takes submits instead of Redis; for `callboard.testing`."""

    def submit(self, task: Task[..., Any, Any], submission: Submission) -> TaskHandle: ...
    async def asubmit(self, task: Task[..., Any, Any], submission: Submission) -> TaskHandle: ...


class Task(Generic[P, R, V]):
    """A function that can be called as ever, or submitted to run elsewhere.

    `contract` says how, `function` is what was decorated.
    """

    __name__: str
    __qualname__: str

    def __init__(self, function: Callable[P, Any], contract: Contract) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.contract = contract
        self.name = contract.name
        self._signature = inspect.signature(function)
        self._positional = _positional(self._signature)
        self._blank: tuple[Blank, Terms] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> V:
        """Run the body here and now, as if it were not a task."""
        return cast("V", self.function(*args, **kwargs))

    def __repr__(self) -> str:
        return f"<Task {self.name!r} in queue {self.contract.queue_name!r}>"

    def __reduce__(self) -> str:
        # Pickled as what it is: a name in the user's module.
        return self.__qualname__

    @property
    def is_async(self) -> bool:
        """Whether the body is `async def`."""
        return bool(self.contract.is_async)

    @property
    def terms(self) -> Terms:
        """The limits that hold now, the queue's filled in."""
        return self.contract.terms()

    def call(self, payload: bytes | Mapping[str, Any]) -> Any:
        """Run the body on a JSON object: its result, or a coroutine of it when `is_async`.

        Raises InvalidPayload before the body starts.
        """
        assert self.contract.adapter is not None
        args, kwargs = self.contract.adapter.arguments(payload)
        return self.function(*args, **kwargs)

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle:
        """Submit a task with these arguments; its handle.

        Raises InvalidPayload, QueueFull, StoreFull, StoreUnavailable.
        """
        if _interceptor is not None or current_or_none() is not None:
            return Prepared(self, {}).submit(*args, **kwargs)
        assert self.contract.adapter is not None
        encoded = self.contract.adapter.encode(self.payload_of(args, kwargs))
        blank = self._blank_now()
        return TaskHandle(blank.accept(encoded), queue=blank.queue)

    def _blank_now(self) -> Blank:
        connection, terms, limits = default.connection(), self.contract.terms(), _both_limits()[0]
        if self._blank is not None:
            blank, made_for = self._blank
            if blank.connection is connection and made_for is terms and blank.limits is limits:
                return blank
        blank = Blank(connection, submission_by(terms, None), limits)
        self._blank = blank, terms
        return blank

    async def asubmit(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle:
        """As `submit`, on the running event loop."""
        return await Prepared(self, {}).asubmit(*args, **kwargs)

    def submit_many(self, payloads: Iterable[Mapping[str, Any] | BaseModel]) -> list[TaskHandle]:
        """Submit a task for each payload, in few round trips; their handles in order.

        Not all or nothing: when one cannot be stored its error is raised, and others may have been accepted.
        """
        return Prepared(self, {}).submit_many(payloads)

    def with_options(self, **options: Unpack[SubmitOptions]) -> Prepared[P, R, V]:
        """`build.with_options(delay=60, priority=0).submit(month="2026-11")`. See SubmitOptions."""
        return Prepared(self, options)

    def payload_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any] | BaseModel:
        """The payload that a call with these arguments means. Raises InvalidPayload when none fits."""
        model = self.contract.payload
        if model is None and args and not kwargs and len(args) <= len(self._positional):
            # What bind_partial would find, at a tenth of its price.
            return dict(zip(self._positional, args, strict=False))
        if model is not None:
            given = [*args, *kwargs.values()]
            return (
                given[0]
                if len(given) == 1 and isinstance(given[0], model)
                else _only_named(self, args, kwargs)
            )
        return _only_named(self, args, kwargs) if not args else self._named(args, kwargs)

    def _named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            bound = self._signature.bind_partial(*args, **kwargs)
        except TypeError as error:
            raise InvalidPayload(f"Task {self.name!r} does not take these arguments: {error}") from error
        values = dict(bound.arguments)
        for parameter in self._signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                values.update(values.pop(parameter.name, {}))
        return values


def _positional(signature: inspect.Signature) -> tuple[str, ...]:
    """The parameters that take arguments by place or name; none when the first ones take no names."""
    kinds = [(parameter.name, parameter.kind) for parameter in signature.parameters.values()]
    either = tuple(name for name, kind in kinds if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return either if either == tuple(name for name, _ in kinds[: len(either)]) else ()


def _only_named(
    task: Task[..., Any, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    if args:
        raise InvalidPayload(f"Task {task.name!r} takes one payload or keyword arguments; got {args!r}.")
    return kwargs


@dataclass(frozen=True)
class Prepared(Generic[P, R, V]):
    """A task with options for its next submits."""

    task: Task[P, R, V]
    options: SubmitOptions

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle:
        """See `Task.submit`."""
        item = self.submission(self.task.payload_of(args, kwargs))
        if _interceptor is not None:
            return _interceptor.submit(self.task, item)
        return _handles(default.connection().run(submit(default.connection().keys, [item], _limits())))[0]

    async def asubmit(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle:
        """See `Task.asubmit`."""
        item = self.submission(self.task.payload_of(args, kwargs))
        if _interceptor is not None:
            return await _interceptor.asubmit(self.task, item)
        connection = default.async_connection()
        return _handles(await connection.run(submit(connection.keys, [item], _limits())))[0]

    def submit_many(self, payloads: Iterable[Mapping[str, Any] | BaseModel]) -> list[TaskHandle]:
        """See `Task.submit_many`."""
        if "task_id" in self.options:
            raise Invalid("task_id names one task; submit_many makes many.")
        items = [self.submission(payload) for payload in payloads]
        if _interceptor is not None:
            return [_interceptor.submit(self.task, item) for item in items]
        connection = default.connection()
        return _handles(connection.run(submit(connection.keys, items, _limits())))

    def submission(self, payload: Mapping[str, Any] | BaseModel) -> Submission:
        """What would be submitted for `payload`. Raises InvalidPayload, and Invalid for a bad option."""
        return submission(self.task.contract, payload, **self.options)


_kept: tuple[Settings, tuple[SubmitLimits, SubmitLimits]] | None = None


def _limits() -> SubmitLimits:
    # What a running task goes on with was accepted with it, so it is refused last.
    return _both_limits()[current_or_none() is not None]


def _both_limits() -> tuple[SubmitLimits, SubmitLimits]:
    global _kept  # noqa: PLW0603 - what was made of the settings that hold, so that each submit need not
    known = default.configured()
    if _kept is None or _kept[0] is not known:
        _kept = known, limits_of(known)
    return _kept[1]


def _handles(replies: Sequence[Submitted]) -> list[TaskHandle]:
    return [_handle(reply) for reply in replies]


def _handle(reply: Submitted) -> TaskHandle:
    if reply.problem is not None:
        raise reply.problem
    return TaskHandle(reply.id)


_registry: dict[str, Task[..., Any, Any]] = {}
_interceptor: Interceptor | None = None


def registered() -> Mapping[str, Task[..., Any, Any]]:
    """Every task declared in this process by name; a live view."""
    return MappingProxyType(_registry)


@contextmanager
def intercepted(interceptor: Interceptor) -> Iterator[None]:
    """Send the submits of this process to `interceptor` meanwhile; for `callboard.testing`."""
    global _interceptor  # noqa: PLW0603 - tests submit from threads too, so it is the process's
    former, _interceptor = _interceptor, interceptor
    try:
        yield
    finally:
        _interceptor = former


@contextmanager
def isolated_registry() -> Iterator[None]:
    """Forget afterwards what was declared inside; for tests."""
    before = dict(_registry)
    try:
        yield
    finally:
        _registry.clear()
        _registry.update(before)


class _Decorator(Protocol):
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> Task[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Task[P, R, R]: ...


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R, Coroutine[Any, Any, R]]: ...
@overload
def task(function: Callable[P, R], /) -> Task[P, R, R]: ...
@overload
def task(contract: Contract, /) -> _Decorator: ...
@overload
def task(*, name: str | None = None, **options: Unpack[ContractOptions]) -> _Decorator: ...
def task(
    what: Callable[..., Any] | Contract | None = None,
    /,
    *,
    name: str | None = None,
    **options: Unpack[ContractOptions],
) -> Any:
    """Make a function a task: `@task`, `@task(queue="reports", retries=5)` or `@task(contract)`.

    Its name is the function's unless `name` says otherwise; its payload's schema is the signature,
    or the contract's Pydantic model. For the options see `Contract`.

    Raises InvalidDeclaration: a bad option, a signature without schema, a name declared twice.
    """
    if isinstance(what, Contract):
        if name or options:
            raise InvalidDeclaration(
                f"{what.place}: @task(contract) takes no options; put them into the contract."
            )
        contract = what
        return lambda function: _register(function, contract.bind(_plain(function)))

    def decorate(function: Callable[..., Any]) -> Task[..., Any, Any]:
        return _register(function, contract_of(_plain(function), name=name, **options))

    return decorate if what is None else decorate(what)


def _plain(function: Any) -> Callable[..., Any]:
    if isinstance(function, Task):
        raise InvalidDeclaration(f"{function.contract.place}: {function.name!r} is a task already.")
    if not callable(function) or isinstance(function, type):
        raise InvalidDeclaration(f"@task decorates a function; got {function!r}.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidDeclaration(
            f"{function.__module__}.{function.__qualname__}: a generator cannot be a task."
        )
    return cast("Callable[..., Any]", function)


def _register(function: Callable[..., Any], contract: Contract) -> Task[..., Any, Any]:
    former = _registry.get(contract.name)
    # The same place again is a module loaded anew (a reload, `__main__` imported by its name).
    if former is not None and former.contract.place != contract.place:
        raise InvalidDeclaration(
            f"Two tasks are named {contract.name!r}: {former.contract.place} and {contract.place}. "
            "Give one of them another: @task(name=…)."
        )
    made: Task[..., Any, Any] = Task(function, contract)
    _registry[contract.name] = made
    return made
