"""Applications: their contracts and, by dotted name, tasks, routes and schedules; found by entry point."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from callboard.catalog.contract import Contract
from callboard.catalog.loading import ModuleFailed, load, users_traceback
from callboard.catalog.place import Place, caller_place
from callboard.catalog.queue import Queue
from callboard.errors import InvalidDeclaration, InvalidSetting, nearest

GROUP: Final = "callboard.apps"


@dataclass(frozen=True, eq=False)
class App:
    """An application, as its entry point names it: `App("knowledge", contracts=[…], tasks="….tasks")`.

    contracts: its tasks' contracts, each named `<application>.<verb_object>`.
    queues: the Queues that it declares, listed so that importing the App declares them.
    tasks: modules that workers import, dotted.
    routes: `package.module:attribute`, a list of Starlette's routes; imported by the API alone, and served
        at their own paths (see `callboard.host`).
    schedules: `package.module:attribute`; imported by the scheduler alone.

    Raises InvalidDeclaration for a contract of another name or one given twice.
    """

    name: str
    contracts: Sequence[Contract] = field(default=(), kw_only=True)
    queues: Sequence[Queue] = field(default=(), kw_only=True)
    tasks: str | Sequence[str] = field(default=(), kw_only=True)
    routes: str | None = field(default=None, kw_only=True)
    schedules: str | None = field(default=None, kw_only=True)
    description: str = field(default="", kw_only=True)
    place: Place = field(default_factory=caller_place, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise InvalidDeclaration(f"{self.place}: {self.name!r} cannot name an application.")
        seen: dict[str, Contract] = {}
        for contract in self.contracts:
            if not contract.name.startswith(f"{self.name}."):
                raise InvalidDeclaration(
                    f"{contract.place}: application {self.name!r} names its tasks {self.name + '.…'!r}; "
                    f"got {contract.name!r}."
                )
            if contract.name in seen:
                raise InvalidDeclaration(
                    f"Two contracts are named {contract.name!r}: {seen[contract.name].place} "
                    f"and {contract.place}."
                )
            seen[contract.name] = contract

    @property
    def task_modules(self) -> tuple[str, ...]:
        """The modules that declare its tasks."""
        return (self.tasks,) if isinstance(self.tasks, str) else tuple(self.tasks)

    def load_tasks(self) -> None:
        """Import its tasks; workers only. Raises ModuleFailed."""
        load(self.task_modules)

    def load_routes(self) -> Any:
        """What `routes` names, or None. Raises ModuleFailed."""
        return None if self.routes is None else _attribute(self.routes)

    def load_schedules(self) -> Any:
        """What `schedules` names, or None. Raises ModuleFailed."""
        return None if self.schedules is None else _attribute(self.schedules)


def discover(wanted: Collection[str] | None = None) -> list[App]:
    """The installed applications by name, those in `wanted` (the setting `apps`; None: all).

    Raises InvalidSetting for a name that nobody installed, ModuleFailed for one that cannot be
    imported, InvalidDeclaration for an entry point that names no App.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        former = found.setdefault(point.name, point)
        if former.value != point.value:
            raise InvalidDeclaration(
                f"Two applications are named {point.name!r}: {former.value} and {point.value}."
            )
    for name in wanted or ():
        if name not in found:
            raise InvalidSetting(
                f"CALLBOARD_APPS: no application is named {name!r}.{nearest(name, found)} "
                f"Installed: {', '.join(sorted(found)) or 'none'}."
            )
    return [_load(found[name]) for name in sorted(found if wanted is None else set(wanted))]


def _load(point: EntryPoint) -> App:
    try:
        app = point.load()
    except Exception as error:
        raise ModuleFailed(
            f"Application {point.name!r} ({point.value}) cannot be loaded:\n{users_traceback(error)}"
        ) from None
    if not isinstance(app, App) or app.name != point.name:
        raise InvalidDeclaration(
            f"The entry point {point.name!r} in {GROUP!r} must name an App of that name; "
            f"{point.value} is {app!r}."
        )
    return app


def _attribute(dotted: str) -> Any:
    module, _, name = dotted.partition(":")
    [loaded] = load([module])
    if not name:
        return loaded
    try:
        return getattr(loaded, name)
    except AttributeError:
        raise ModuleFailed(f"{module} has no {name!r}, which {dotted!r} names.") from None
