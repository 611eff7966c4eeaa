"""Waiting for what must come true, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.01
#: Only a failure takes so long.
_TIMEOUT_SECONDS = 60.0


def wait_until(
    predicate: Callable[[], T | None],
    timeout: float = _TIMEOUT_SECONDS,
    description: str = "it",
    *,
    poll: float = _POLL_SECONDS,
) -> T:
    """Ask `predicate` again and again until its answer is truthy, and return that answer.

    timeout, poll: seconds. Past the timeout the test fails, naming `description` and the last answer.
    """
    patience = _Patience(timeout)
    while not (answer := predicate()):
        if patience.ended():
            raise AssertionError(_complaint(description, timeout, answer))
        time.sleep(poll)
    return answer


async def wait_until_async(
    predicate: Callable[[], T | None],
    timeout: float = _TIMEOUT_SECONDS,
    description: str = "it",
    *,
    poll: float = _POLL_SECONDS,
) -> T:
    """`wait_until` that lets the event loop run."""
    patience = _Patience(timeout)
    while not (answer := predicate()):
        if patience.ended():
            raise AssertionError(_complaint(description, timeout, answer))
        await asyncio.sleep(poll)
    return answer


class _Patience:
    """So many seconds. Of a long gap between two looks one second counts: what is awaited stood still too."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._looked_at = time.monotonic()

    def ended(self) -> bool:
        now = time.monotonic()
        self._left -= min(now - self._looked_at, 1.0)
        self._looked_at = now
        return self._left <= 0


def _complaint(description: str, timeout: float, answer: object) -> str:
    return f"{description} did not come true within {timeout:g} s; the last answer was {answer!r}"
