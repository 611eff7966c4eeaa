"""The fate of a worker that vanished: whose doing it was, and so what it costs the tasks that it held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from callboard.catalog.origin import Origin

#: `strike`: an attempt, and one of the losses that end in quarantine. `attempt`: an attempt alone; the task
#: perhaps had a part in it, but did not kill its worker. `nothing`: an interruption, somebody else's doing.
Cost = Literal["strike", "attempt", "nothing"]


@dataclass(frozen=True, slots=True)
class Fate:
    """`cause`: what is known of it, in words that go on from "Worker x vanished: "; may be empty."""

    cause: str = ""
    costs: Cost = "strike"


Fates = Callable[[str, Origin | None], Fate | None]
"""Judges a worker's death, by its id and its note. None: not known yet, ask again soon. Must not block."""


def by_note(worker: str, origin: Origin | None) -> Fate:
    """The fate by the worker's own note alone: whoever was told to stop was killed by who told it."""
    if origin is None or not origin.draining:
        return Fate()
    return Fate(origin.reason or "it was killed while it drained", "nothing")
