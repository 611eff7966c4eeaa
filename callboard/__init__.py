"""Callboard: background tasks that a team can post, watch and scale.

    from callboard import task, progress

    @task(queue="reports")
    def build(month: str, rows: int = 100) -> dict: ...

    build.submit(month="2026-11").result(timeout=60)

Importing this package is light: each name below is fetched when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from callboard import testing as testing
    from callboard.broker.broker import CallboardBroker as CallboardBroker
    from callboard.catalog.app import App as App
    from callboard.catalog.backoff import exponential as exponential
    from callboard.catalog.contract import Contract as Contract
    from callboard.catalog.queue import Queue as Queue
    from callboard.catalog.schedule import Schedule as Schedule
    from callboard.context import Cancelled as Cancelled
    from callboard.context import Discard as Discard
    from callboard.context import Retry as Retry
    from callboard.context import SoftLimitExceeded as SoftLimitExceeded
    from callboard.context import current as current
    from callboard.context import on_child_start as on_child_start
    from callboard.context import on_child_stop as on_child_stop
    from callboard.context import progress as progress
    from callboard.errors import CallboardError as CallboardError
    from callboard.errors import TaskFailed as TaskFailed
    from callboard.errors import WaitTimeout as WaitTimeout
    from callboard.handle import TaskHandle as TaskHandle
    from callboard.handle import handle as handle
    from callboard.storage.default import aclose as aclose
    from callboard.storage.default import configure as configure
    from callboard.task import task as task

_HOMES = {
    "App": "catalog.app",
    "CallboardBroker": "broker.broker",
    "CallboardError": "errors",
    "Cancelled": "context",
    "Contract": "catalog.contract",
    "Discard": "context",
    "Queue": "catalog.queue",
    "Retry": "context",
    "Schedule": "catalog.schedule",
    "SoftLimitExceeded": "context",
    "TaskFailed": "errors",
    "TaskHandle": "handle",
    "WaitTimeout": "errors",
    "aclose": "storage.default",
    "configure": "storage.default",
    "current": "context",
    "exponential": "catalog.backoff",
    "handle": "handle",
    "on_child_start": "context",
    "on_child_stop": "context",
    "progress": "context",
    "task": "task",
}

__all__ = [*_HOMES, "__version__", "testing"]  # noqa: PLE0604 - all of them are strings


def __getattr__(name: str) -> Any:
    if name == "testing":
        return import_module("callboard.testing")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'callboard' has no attribute {name!r}")
    value = getattr(import_module(f"callboard.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `callboard.task` and `callboard.handle` the public functions.

    The import system binds a submodule to its name in the package; for these two that would replace
    the function as soon as anything imports the module of the same name.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
