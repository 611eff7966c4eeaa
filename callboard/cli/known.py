"""What a worker with these settings would know: its tasks and Dramatiq actors, loaded as it loads them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from callboard.errors import UnknownTask

if TYPE_CHECKING:
    from callboard.catalog.contract import Contract


@dataclass(frozen=True, slots=True)
class Body:
    """A body that can be called here.

    bind: makes a call of a payload; raises InvalidPayload. What it makes gives a coroutine when `is_async`.
    """

    contract: Contract
    bind: Callable[[Mapping[str, Any]], Callable[[], Any]]
    is_async: bool


@dataclass(frozen=True, slots=True)
class Known:
    """contracts: by name. folders: where the loaded code is. queues: declared or used, in that order."""

    contracts: Mapping[str, Contract]
    folders: tuple[str, ...]
    queues: tuple[str, ...]
    actors: Mapping[str, Any]

    def body(self, name: str) -> Body:
        """Raises UnknownTask with the nearest name."""
        from callboard.task import registered

        if name not in self.contracts:
            raise UnknownTask(name, self.contracts)
        contract = self.contracts[name]
        task = registered().get(name)
        if task is not None:
            adapter = contract.adapter
            assert adapter is not None

            def bind(payload: Mapping[str, Any]) -> Callable[[], Any]:
                args, kwargs = adapter.arguments(json.dumps(payload).encode())
                return partial(task.function, *args, **kwargs)

            return Body(contract, bind, task.is_async)
        # An `async def` actor is wrapped for the loop of Dramatiq's own worker; here it gets one of its own.
        function = self.actors[name].fn
        inner = inspect.unwrap(function)
        is_async = inspect.iscoroutinefunction(inner)
        called = inner if is_async else function
        return Body(contract, lambda payload: partial(called, **payload), is_async)


def load_known(modules: Iterable[str], apps: Collection[str] | None = None) -> Known:
    """Import the tasks of `apps` (None: of all that are installed) and `modules`, and tell what they declare.

    Raises ModuleFailed, InvalidDeclaration.
    """
    from callboard.catalog.app import discover
    from callboard.catalog.loading import load
    from callboard.catalog.queue import declared_queues

    # Asked for by name: services stand above the library. The first gives actors a broker, as in a worker.
    import_module("callboard_worker.prelude")
    worker = import_module("callboard_worker.definition")
    loaded: list[ModuleType] = []
    for app in discover(apps):
        loaded += load(app.task_modules)
    loaded += load(tuple(modules))
    broker = worker.dramatiq.get_broker()
    contracts: dict[str, Contract] = {
        name: definition.contract for name, definition in worker.definitions(broker).items()
    }
    queues = dict.fromkeys((*declared_queues(), *(contract.queue_name for contract in contracts.values())))
    folders = dict.fromkeys(
        str(Path(module.__file__).resolve().parent) for module in loaded if module.__file__ is not None
    )
    return Known(contracts, tuple(folders), tuple(queues), dict(broker.actors))
