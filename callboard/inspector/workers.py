"""Workers, as presence shows them."""

from callboard.catalog.presence import Presence as WorkerView
from callboard.catalog.presence import read as workers

__all__ = ["WorkerView", "workers"]
