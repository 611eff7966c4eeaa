"""The pulse: whether Redis is there and fit, and the queues' figures for `/metrics`, every few seconds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from callboard import clock
from callboard.errors import CallboardError, StoreUnfit
from callboard.maintenance.sampler import figures
from callboard.metrics import SnapshotCollector, metrics
from callboard.storage import fitness
from callboard_api.platform import Platform

logger = logging.getLogger("callboard.api")

INTERVAL_SECONDS: Final = 5.0
_AWAY_INTERVAL_SECONDS: Final = 1.0
_TICK_SECONDS: Final = 1.0
_STUCK_SECONDS: Final = 30.0


class Pulse:
    """A loop that runs beside the requests. `verdict`, for the ops port's `/readyz`: True, or what is wrong.

    on_unfit: called once with the reason when this Redis must not be used.
    """

    def __init__(
        self,
        platform: Platform,
        on_unfit: Callable[[str], None] | None = None,
        snapshots: SnapshotCollector = metrics.snapshots,
    ) -> None:
        self.verdict: bool | str = "has not reached Redis yet"
        self._platform = platform
        self._on_unfit = on_unfit
        self._snapshots = snapshots
        self._checked = False
        self._ticked_at = clock.monotonic()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            try:
                await self._beat()
                self.verdict = True
            except CallboardError as error:
                self.verdict = error.message
                # Once it has been fit, this may pass: somebody changes a password, say.
                if isinstance(error, StoreUnfit) and not self._checked:
                    self._refuse(error.message)
                    return
            except Exception:
                # A loop that dies would leave stale figures to the autoscaler; the next beat may succeed.
                logger.exception("Sampling the queues failed")
            await asyncio.sleep(INTERVAL_SECONDS if self.verdict is True else _AWAY_INTERVAL_SECONDS)

    async def tick(self) -> None:
        """Show that the event loop turns, until cancelled."""
        while True:
            self._ticked_at = clock.monotonic()
            await asyncio.sleep(_TICK_SECONDS)

    def alive(self) -> bool | str:
        """For the ops port's `/livez`, asked from another thread."""
        late = clock.monotonic() - self._ticked_at
        return late < _STUCK_SECONDS or f"the event loop has stood still for {late:.0f} s"

    def _refuse(self, reason: str) -> None:
        self._platform.unfit = reason
        logger.critical("%s", reason)
        if self._on_unfit is not None:
            self._on_unfit(reason)

    async def _beat(self) -> None:
        platform = self._platform
        if not self._checked:
            for warning in await platform.run(fitness.check(platform.keys)):
                logger.warning("%s", warning)
            self._checked = True
        snapshot = await platform.catalog.snapshot()
        objectives = snapshot.objectives()
        self._snapshots.show_queues(
            [
                await platform.run(figures(platform.keys, name, objectives.get(name)))
                for name in sorted(snapshot.queues | snapshot.catalog.queue_names())
            ]
        )
