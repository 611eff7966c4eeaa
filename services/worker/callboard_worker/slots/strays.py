"""Ended processes that nobody waits for: descendants of bodies, adopted by this process when theirs ended."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

# Long enough that whoever started a process himself has asked for its status by then.
PATIENCE_SECONDS = 600.0
LOOK_SECONDS = 60.0
SOON_SECONDS = 0.2


class Strays:
    """Reaps what is left of dead children's groups, and zombies of foreign sessions after ten minutes.

    Never `waitpid(-1)`: it would steal the statuses that subprocess and the slots wait for. `ours(pid)`
    says which processes somebody here still asks about.
    """

    def __init__(self, ours: Callable[[int], bool], patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._ours = ours
        self._patience_seconds = patience_seconds
        self._seen: dict[int, float] = {}
        self._groups: set[int] = set()

    def expect(self, group: int) -> None:
        """The leader of this process group is dead and its members were killed: they are to be reaped."""
        self._groups.add(group)

    def look(self, now: float) -> list[int]:
        """One round, at the monotonic time `now`; the processes that were reaped."""
        reaped = [pid for group in list(self._groups) for pid in self._reap_group(group)]
        zombies = set(_foreign_zombies())
        self._seen = {pid: self._seen.get(pid, now) for pid in zombies if not self._ours(pid)}
        for pid, since in list(self._seen.items()):
            if now - since >= self._patience_seconds:
                del self._seen[pid]
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                    reaped.append(pid)
        return reaped

    def _reap_group(self, group: int) -> list[int]:
        reaped: list[int] = []
        try:
            # A new child of ours may have got the number since.
            while not self._ours(group):
                pid, _ = os.waitpid(-group, os.WNOHANG)
                if pid == 0:
                    return reaped  # Some are not dead yet: again at the next look.
                reaped.append(pid)
        except ChildProcessError:
            pass
        self._groups.discard(group)
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
