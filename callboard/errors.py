"""Every error that Callboard raises, in one tree, each with a stable code.

The five branches say what the caller can do: `Invalid` (mend the request), `Missing` (it is not
there), `Conflict` (its state forbids that), `Refused` (no room now), `Unavailable` (try again).
A code is part of the interface: kebab-case, the same word over HTTP, in the CLI and in logs, and
described in `docs/errors.md`.

Signals that steer a task's body (`Retry`, `Discard`) are no errors and live in `context`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


class CallboardError(Exception):
    """The root. `str(error)` is a sentence for a person; `code` is for programs."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        # An error must survive the way out of a child process whatever its constructor asks for.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[CallboardError], args: tuple[Any, ...], state: dict[str, Any]) -> CallboardError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the nearest known word, or nothing when none is near."""
    from difflib import get_close_matches

    matches = get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f" Did you mean {matches[0]!r}?" if matches else ""


class Invalid(CallboardError):
    """The request cannot be right, now or later."""

    code = "invalid-body"


class UnknownTask(Invalid):
    """No task has this name. Gives the nearest known one."""

    code = "unknown-task"

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        super().__init__(f"No task is named {name!r}.{nearest(name, known)}")
        self.name = name


class UnknownQueue(Invalid):
    """No queue has this name. Gives the nearest known one."""

    code = "unknown-queue"

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        super().__init__(f"No queue is named {name!r}.{nearest(name, known)}")
        self.name = name


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a payload: where (a JSON pointer such as `#/payload/url`), what, and its code."""

    pointer: str
    detail: str
    code: str = "invalid"


class InvalidPayload(Invalid):
    """A payload does not fit its task's schema; `problems` lists every fault with its place."""

    code = "invalid-payload"

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class InvalidSetting(Invalid):
    """A setting is unknown or has a bad value: which one, what it got, what it expected."""

    code = "invalid-setting"


class InvalidDeclaration(Invalid):
    """A task, queue or application is declared wrongly or twice; the message names the places."""

    code = "invalid-declaration"


class NotSupportedYet(Invalid):
    """The request uses a feature that this version does not have: refused, never ignored."""

    code = "not-supported-yet"


class MissingExtra(Invalid):
    """A part of Callboard needs packages that a plain install leaves out."""

    code = "missing-extra"

    def __init__(self, extra: str, needs: str = "") -> None:
        wanted = f" ({needs} is not installed)" if needs else ""
        super().__init__(f"This needs the extra {extra!r}{wanted}: pip install 'callboard[{extra}]'")
        self.extra = extra


class Missing(CallboardError):
    """What was asked for is not there."""

    code = "not-found"


class TaskNotFound(Missing):
    """No task has this id: it never existed, was deleted, or its retention ended."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"No task has the id {task_id!r}.")
        self.task_id = task_id


class WorkerNotFound(Missing):
    """No living worker has this id."""

    def __init__(self, worker_id: str) -> None:
        super().__init__(f"No worker has the id {worker_id!r}.")
        self.worker_id = worker_id


class Conflict(CallboardError):
    """What was asked for contradicts the present state."""

    code = "conflict-state"


class IllegalTransition(Conflict):
    """The task's state does not allow this step; `state` names it."""

    def __init__(self, message: str, *, state: str) -> None:
        super().__init__(message)
        self.state = state


class DuplicateTask(Conflict):
    """Another task with this id exists already and is not the same submit sent again."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"A task with the id {task_id!r} exists already.")
        self.task_id = task_id


class Refused(CallboardError):
    """A sound request that there is no room for now."""

    code = "rate-limited"


class QueueFull(Refused):
    """The queue holds as many waiting tasks as it may."""

    code = "queue-full"


class StoreFull(Refused):
    """Redis is above its memory mark."""

    code = "store-full"


class Unavailable(CallboardError):
    """A part that is needed does not answer; the same request may succeed later."""

    code = "unavailable"


class StoreUnavailable(Unavailable):
    """Redis does not answer, or answered with a connection error."""

    code = "store-unavailable"


class Unconfirmed(StoreUnavailable):
    """A task is stored, but not as safely as CALLBOARD_DURABILITY=replicated asks; `task_id` names it."""

    def __init__(self, task_id: str, within_ms: int) -> None:
        super().__init__(
            f"Task {task_id!r} is stored, but no replica of Redis has confirmed it within "
            f"{within_ms / 1000:g} s; sending it again may make a second one."
        )
        self.task_id = task_id


class LeaseLost(Unavailable):
    """The claim on a task has passed to another worker; this one's outcome is refused."""

    code = "lease-lost"


class StoreUnfit(CallboardError):
    """This Redis must not be used: too old, it evicts keys, or its data is from a newer release."""

    code = "store-unfit"


class TaskFailed(CallboardError):
    """A task whose result was wanted ended failed or cancelled.

    `record` is its final record; the message ends with the remote traceback where there is one.
    """

    code = "task-failed"

    def __init__(self, message: str, record: Any = None, *, traceback: str | None = None) -> None:
        super().__init__(message)
        self.record = record
        self.traceback = traceback

    def __str__(self) -> str:
        if not self.traceback:
            return self.message
        return f"{self.message}\n\nRemote traceback:\n{self.traceback.rstrip()}"


class WaitTimeout(CallboardError, TimeoutError):
    """A task did not end within the time given to wait for it; it goes on."""

    code = "wait-timeout"


def codes() -> dict[str, str]:
    """Every code with the first line of the docstring of the widest class that has it."""
    found: dict[str, str] = {}
    waiting: list[type[CallboardError]] = [CallboardError]
    while waiting:
        kind = waiting.pop(0)
        found.setdefault(kind.code, (kind.__doc__ or "").strip().splitlines()[0])
        waiting.extend(kind.__subclasses__())
    return found
