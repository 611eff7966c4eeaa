"""Schedules declared in code: put into the timetable at the start, and left alone once edited by hand."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from callboard.catalog.app import discover
from callboard.catalog.loading import ModuleFailed, load
from callboard.catalog.schedule import Schedule, schedules_in
from callboard.catalog.timetable import put_declared
from callboard.errors import Invalid
from callboard.settings import Settings
from callboard.storage.connection import Connection

logger = logging.getLogger(__name__)


def declared(settings: Settings) -> Iterator[tuple[str, list[Schedule]]]:
    """(origin, schedules) of each application and module that the settings name.

    One that cannot be imported here is told in the log and passed over: a scheduler's image need not hold
    the code of tasks.
    """
    for app in discover(settings.apps):
        try:
            found = app.load_schedules()
            if found is not None:
                yield f"app:{app.name}", schedules_in(found)
        except Invalid as error:
            logger.warning("The schedules of application %s are left out: %s", app.name, error)
    for name in settings.modules:
        try:
            [module] = load([name])
            yield f"module:{name}", schedules_in(module)
        except ModuleFailed as error:
            logger.warning("Schedules that module %s declares are left out: %s", name, error)


def put_all(connection: Connection, settings: Settings) -> None:
    """Put what is declared. Raises StoreUnavailable, and InvalidSetting for an unknown application."""
    for origin, schedules in declared(settings):
        written = connection.run(put_declared(connection.keys, schedules, origin))
        if written:
            logger.info("Put schedules of %s: %s", origin, ", ".join(written))
