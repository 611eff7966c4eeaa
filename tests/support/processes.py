"""Process slots and the processes behind them, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from callboard_worker.slots.process import ProcessSlots
from callboard_worker.slots.slot import Outcome
from tests.support.recording import Recorder

BODIES = "tests.support.bodies"
MakeSlots = Callable[..., ProcessSlots]


@contextmanager
def slot_maker(recorder: Recorder) -> Iterator[MakeSlots]:
    """`make(capacity, **options)` starts slots, which are closed at the end."""
    groups: list[ProcessSlots] = []

    def make(capacity: int = 2, **options: Any) -> ProcessSlots:
        group = ProcessSlots(capacity, recorder, **{"modules": [BODIES], "grace_seconds": 0.5, **options})
        groups.append(group)
        group.start()
        return group

    yield make
    for group in groups:
        group.close(5)


def result(outcome: Outcome) -> Any:
    """What a completed body returned."""
    assert outcome.kind == "completed", outcome
    return json.loads(outcome.result or b"")


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
