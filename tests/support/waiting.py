"""Waiting for what must come true, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.01
#: Only a failure takes so long, and a machine that stood still for a while is none.
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
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() >= deadline:
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
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() >= deadline:
            raise AssertionError(_complaint(description, timeout, answer))
        await asyncio.sleep(poll)
    return answer


def _complaint(description: str, timeout: float, answer: object) -> str:
    return f"{description} did not come true within {timeout:g} s; the last answer was {answer!r}"
