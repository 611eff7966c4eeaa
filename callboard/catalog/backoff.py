"""How long a task waits before it is tried again. Pure: chance is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from callboard.catalog.quantities import Duration, duration_ms
from callboard.errors import InvalidDeclaration


@dataclass(frozen=True, slots=True)
class Steps:
    """Fixed delays, ms: one after each failed attempt; the last one repeats."""

    delays_ms: tuple[int, ...]

    def delay_ms(self, attempt: int, chance: float = 0.5) -> int:
        """The wait after failed attempt number `attempt` (from 1)."""
        return self.delays_ms[min(max(attempt, 1), len(self.delays_ms)) - 1]

    def document(self) -> dict[str, Any]:
        return {"delays_ms": list(self.delays_ms)}


@dataclass(frozen=True, slots=True)
class Growing:
    """`base`, doubling after each failed attempt up to `cap`, times 1 ± `jitter`."""

    base_ms: int = 5_000
    cap_ms: int = 3_600_000
    jitter: float = 0.25

    def delay_ms(self, attempt: int, chance: float = 0.5) -> int:
        """The wait after failed attempt number `attempt` (from 1). `chance`: 0 ≤ chance < 1, uniform.

        The jitter stays below the cap too, so that a thousand capped tasks still spread.
        """
        # 2 ** 50 ms is beyond every cap, and a bound keeps an endless retry from a huge power.
        grown = min(self.cap_ms, self.base_ms * 2 ** min(max(attempt, 1) - 1, 50))
        high = min(float(self.cap_ms), grown * (1 + self.jitter))
        low = grown * (1 - self.jitter)
        return max(1, int(low + (high - low) * chance))

    def document(self) -> dict[str, Any]:
        return {"base_ms": self.base_ms, "cap_ms": self.cap_ms, "jitter": self.jitter}


Backoff = Steps | Growing

DEFAULT_BACKOFF = Growing()


def exponential(base: Duration = 5, cap: Duration = 3600, jitter: float = 0.25) -> Growing:
    """Growing delays for `@task(delays=…)`: `exponential(base=1, cap=60)`, in seconds or timedeltas.

    Raises InvalidDeclaration unless 0 < base ≤ cap and 0 ≤ jitter ≤ 1.
    """
    growing = Growing(duration_ms(base, "base"), duration_ms(cap, "cap"), jitter)
    if growing.base_ms > growing.cap_ms or not 0 <= jitter <= 1:
        raise InvalidDeclaration(f"exponential: expected base ≤ cap and jitter 0 to 1; got {growing}.")
    return growing


def backoff_of(delays: Sequence[Duration] | Backoff) -> Backoff:
    """The backoff for what a declaration gives as `delays`. Raises InvalidDeclaration."""
    if isinstance(delays, Steps | Growing):
        return delays
    steps: tuple[Any, ...] = tuple(delays)
    if not steps or isinstance(steps[0], str):
        raise InvalidDeclaration(f"delays: expected a list of durations or exponential(…); got {delays!r}.")
    return Steps(tuple(duration_ms(delay, "delays", zero=True) for delay in steps))


def backoff_from(document: dict[str, Any]) -> Backoff:
    """The inverse of `document()`. Raises KeyError or TypeError for another shape."""
    if "delays_ms" in document:
        return Steps(tuple(document["delays_ms"]))
    return Growing(document["base_ms"], document["cap_ms"], document["jitter"])
