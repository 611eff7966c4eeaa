"""The store as requests use it: in turns, with patience, and one log line when it goes and comes."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, TypeVar

from callboard.errors import StoreUnavailable
from callboard.storage.connection import AsyncConnection
from callboard.storage.keys import Keys
from callboard.storage.operation import Operation

logger = logging.getLogger("callboard.api")

T = TypeVar("T")

#: Operations on Redis at once; more wait their turn here, in order, instead of opening ever more connections.
_AT_ONCE: Final = 64
#: What one operation may take, waiting for its turn included.
PATIENCE_SECONDS = 8.0


class Store:
    """Drives operations for everybody in this process."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._away = False

    @property
    def keys(self) -> Keys:
        return self.connection.keys

    async def run(self, operation: Operation[T], *, patience_seconds: float | None = None) -> T:
        """Drive an operation, within `patience_seconds` (by default PATIENCE_SECONDS), its turn included.

        Raises StoreUnavailable, StoreFull, and what the operation raises.
        """
        patience = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
        try:
            async with asyncio.timeout(patience), self._turns:
                result = await self.connection.run(operation)
        except StoreUnavailable as error:
            self._tell(away=True, why=str(error))
            raise
        except TimeoutError:
            # A Redis that hangs must not gather requests until nothing can be answered any more.
            late = StoreUnavailable(f"Redis does not answer within {patience:g} s")
            self._tell(away=True, why=str(late))
            raise late from None
        if self._away:
            self._tell(away=False)
        return result

    def _tell(self, *, away: bool, why: str = "") -> None:
        # One line when it goes and one when it is back, not one for each refused request.
        if away == self._away:
            return
        self._away = away
        if away:
            logger.warning("%s; requests are answered 503 until it is back", why)
        else:
            logger.warning("Redis answers again")
