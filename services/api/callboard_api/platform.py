"""What the routes share: the store, the catalog, the streams; one for each application object."""

from __future__ import annotations

import asyncio
import logging
from typing import TypeVar

from callboard.errors import StoreUnavailable
from callboard.settings import Settings
from callboard.storage.connection import AsyncConnection
from callboard.storage.keys import Keys
from callboard.storage.operation import Command, Operation
from callboard.submit import SubmitLimits
from callboard_api.auth import Guard
from callboard_api.catalog import CatalogView
from callboard_api.completions import Completions
from callboard_api.payloads import PayloadChecker
from callboard_api.streams.hub import Hub

logger = logging.getLogger("callboard.api")

T = TypeVar("T")

#: Operations on Redis at once; more wait their turn here, in order, instead of opening ever more connections.
_AT_ONCE = 64


class Platform:
    """The parts of one API process. Raises InvalidSetting (see Guard)."""

    def __init__(self, settings: Settings, connection: AsyncConnection) -> None:
        self.settings = settings
        self.connection = connection
        self.guard = Guard(settings)
        self.catalog = CatalogView(connection)
        self.payloads = PayloadChecker()
        self.completions = Completions(connection)
        self.hub = Hub(connection)
        self.limits = SubmitLimits(settings.memory_submit_percent / 100, settings.queue_max_depth)
        #: Why this Redis must not be used, once that is known.
        self.unfit: str | None = None
        #: What `/openapi.json` and `/docs` answer.
        self.openapi = self.docs = b""
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._away = False

    @property
    def keys(self) -> Keys:
        return self.connection.keys

    async def run(self, operation: Operation[T]) -> T:
        """Drive an operation. Raises StoreUnavailable, StoreFull, and what the operation raises."""
        async with self._turns:
            try:
                result = await self.connection.run(operation)
            except StoreUnavailable as error:
                self._tell(away=True, why=str(error))
                raise
        if self._away:
            self._tell(away=False)
        return result

    async def ready(self) -> bool:
        """Whether Redis answers, and may be used."""
        if self.unfit is not None:
            return False
        try:
            await self.run(_ping())
        except StoreUnavailable:
            return False
        return True

    def stop_waiting(self) -> None:
        """End the streams and answer the long polls, so that a shutdown need not wait for them."""
        self.completions.stop()
        self.hub.stop()

    async def close(self) -> None:
        """Stop, and close every connection."""
        self.stop_waiting()
        await self.completions.close()
        await self.hub.close()
        await self.connection.close()

    def _tell(self, *, away: bool, why: str = "") -> None:
        # One line when it goes and one when it is back, not one for each refused request.
        if away == self._away:
            return
        self._away = away
        if away:
            logger.warning("%s; requests are answered 503 until it is back", why)
        else:
            logger.warning("Redis answers again")


def _ping() -> Operation[None]:
    yield Command("PING")
