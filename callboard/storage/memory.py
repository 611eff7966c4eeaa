"""A server's memory: how full it is, asked for now and then."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from callboard import clock

#: For what is refused by it.
FRESH_SECONDS: Final = 1.0
#: For what only becomes quieter by it.
RECENT_SECONDS: Final = 5.0

_FIELD: Final = re.compile(rb"^(used_memory|maxmemory):(\d+)\r?$", re.MULTILINE)


class Memory:
    """Used memory as a share of maxmemory, as it was when it was last asked for; 0.0 without a maxmemory."""

    def __init__(self) -> None:
        self.share = 0.0
        self._asked = float("-inf")
        self._told = False

    def known(self, within_seconds: float) -> bool:
        """Whether it was asked for within the last so many seconds."""
        return clock.monotonic() - self._asked < within_seconds

    def asking(self) -> None:
        """An answer is on its way: whoever comes now goes on with the one before, if there is one."""
        if self._told:
            self._asked = clock.monotonic()

    def forget(self) -> None:
        """The next one asks."""
        self._asked = float("-inf")

    def note(self, info: Mapping[str, Any] | bytes) -> float:
        """The share that INFO's section `memory` tells, as redis-py's table or as it came."""
        if isinstance(info, bytes):
            # redis-py's table of all sixty fields takes longer than the submit that waits for two of them.
            info = {name.decode(): value for name, value in _FIELD.findall(info)}
        most = float(info.get("maxmemory", 0) or 0)
        self.share = float(info.get("used_memory", 0)) / most if most else 0.0
        self._told, self._asked = True, clock.monotonic()
        return self.share
