"""What operating commands share: the settings, and a client of the API that they name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callboard.client import Client


@contextmanager
def api() -> Iterator[Client]:
    """A client for CALLBOARD_URL with CALLBOARD_KEY. Raises InvalidSetting, MissingExtra."""
    from callboard.client import Client
    from callboard.settings import load

    settings = load()
    key = settings.key.get_secret_value() if settings.key is not None else None
    with Client(settings.url, key) as client:
        yield client
