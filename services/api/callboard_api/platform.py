"""What the routes share: the store, the catalog, the streams; one for each application object."""

from __future__ import annotations

from callboard import cluster
from callboard.cluster import Scales
from callboard.errors import StoreUnavailable
from callboard.inspector.scaling import Scalings
from callboard.settings import Settings
from callboard.storage.connection import AsyncConnection
from callboard.storage.keys import Keys
from callboard.storage.operation import Command, Operation
from callboard.submit import limits_of
from callboard_api.auth import Guard
from callboard_api.catalog import CatalogView
from callboard_api.completions import Completions
from callboard_api.payloads import PayloadChecker
from callboard_api.store import Store
from callboard_api.streams.hub import Hub


class Platform:
    """The parts of one API process. `run` is the store's. Raises InvalidSetting (see Guard)."""

    def __init__(self, settings: Settings, connection: AsyncConnection) -> None:
        self.settings = settings
        self.connection = connection
        self.guard = Guard(settings)
        self.store = Store(connection)
        self.run = self.store.run
        self.catalog = CatalogView(self.store)
        self.payloads = PayloadChecker()
        self.completions = Completions(connection)
        self.hub = Hub(self.store)
        found = cluster.find(settings)
        self._scales = Scales(found[1], settings.cluster_selector) if found else None
        self.limits, _ = limits_of(settings)
        #: Why this Redis must not be used, once that is known.
        self.unfit: str | None = None
        #: What `/openapi.json` and `/docs` answer.
        self.openapi = self.docs = b""

    @property
    def keys(self) -> Keys:
        return self.connection.keys

    async def ready(self) -> bool:
        """Whether Redis answers, and may be used."""
        if self.unfit is not None:
            return False
        try:
            await self.run(_ping())
        except StoreUnavailable:
            return False
        return True

    async def scalings(self) -> Scalings:
        """How the workers of each queue scale; nothing outside a cluster."""
        return {} if self._scales is None else await self._scales.scalings()

    def stop_waiting(self) -> None:
        """End the streams and answer the long polls, so that a shutdown need not wait for them."""
        self.completions.stop()
        self.hub.stop()

    async def close(self) -> None:
        """Stop, and close every connection."""
        self.stop_waiting()
        await self.completions.close()
        await self.hub.close()
        if self._scales is not None:
            await self._scales.close()
        await self.connection.close()


def _ping() -> Operation[None]:
    yield Command("PING")
