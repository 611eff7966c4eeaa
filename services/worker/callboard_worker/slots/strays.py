"""Ended processes that nobody waits for: descendants of bodies, adopted by this process when theirs ended."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

# Long enough that whoever started a process himself has asked for its status by then.
PATIENCE_SECONDS = 600.0
LOOK_SECONDS = 60.0


class Strays:
    """Reaps zombies of foreign sessions that have been there for ten minutes.

    Never `waitpid(-1)`: it would steal the statuses that subprocess and the slots wait for. `ours(pid)`
    says which processes somebody here still asks about.
    """

    def __init__(self, ours: Callable[[int], bool], patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._ours = ours
        self._patience_seconds = patience_seconds
        self._seen: dict[int, float] = {}

    def look(self, now: float) -> list[int]:
        """One round, at the monotonic time `now`; the processes that were reaped."""
        zombies = set(_foreign_zombies())
        self._seen = {pid: self._seen.get(pid, now) for pid in zombies if not self._ours(pid)}
        reaped = []
        for pid, since in list(self._seen.items()):
            if now - since >= self._patience_seconds:
                del self._seen[pid]
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                    reaped.append(pid)
        return reaped


def _foreign_zombies() -> list[int]:
    """This process's ended children that belong to another session."""
    own, session = os.getpid(), os.getsid(0)
    found = []
    for pid in _children(own):
        with contextlib.suppress(OSError, IndexError, ValueError):
            # The name, in parentheses, may hold anything; what follows it is fixed.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            state, parent, its_session = fields[0], int(fields[1]), int(fields[3])
            if state == "Z" and parent == own and its_session != session:
                found.append(pid)
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                children += map(int, (task / "children").read_text().split())
    return children
