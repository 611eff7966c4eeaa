"""What an application's routes get from the API that serves them: its store, and who asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from callboard.broker.submission import SubmitLimits
from callboard.errors import Invalid
from callboard.storage.keys import Keys
from callboard.storage.operation import Operation

T = TypeVar("T")

#: Where it is in a request's ASGI scope.
SCOPE: Final = "callboard"


@dataclass(frozen=True, slots=True)
class Host:
    """The API, for one request of an application's route.

    keys, limits: what operations take. owner: who asks; submits carry it. sees: the owner whose things may
    be shown, None for everybody's.
    """

    keys: Keys
    limits: SubmitLimits
    owner: str
    sees: str | None
    _run: Callable[[Operation[Any]], Awaitable[Any]] = field(repr=False)

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> Host:
        """The host of a request, from its ASGI scope (Starlette's `request.scope`).

        Raises Invalid outside the API.
        """
        found = scope.get(SCOPE)
        if not isinstance(found, cls):
            raise Invalid("This route is not served by Callboard's API, so it has no host.")
        return found

    async def run(self, operation: Operation[T]) -> T:
        """Drive an operation: `submit(host.keys, […], host.limits)`, `inspector.get(host.keys, id)`, ….

        Raises StoreUnavailable, StoreFull, and what the operation raises. Left alone, they are the answer.
        """
        done: T = await self._run(operation)
        return done
