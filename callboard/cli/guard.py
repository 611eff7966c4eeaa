"""The guard: a small process that ends what a killed supervisor leaves behind.

A supervisor that gets SIGKILL can stop nothing any more. So it tells this process, line by line on a
pipe, which of its children live (`+PID ROLE`, `-PID`); when the pipe closes, what is still listed is
ended: SIGTERM, then SIGKILL, and last of all, when nobody writes any more, what has the role `server`.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

from callboard import clock

#: What would end a terminal's processes; the guard must outlive those.
_DEAF_TO = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: What SIGTERM has not ended by then is killed. A drain may take longer; without a supervisor it may not.
GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.05


class Guard:
    """The supervisor's side: start it, and tell it who lives."""

    def __init__(self) -> None:
        # Inherited blocked: a signal that comes before it has learnt to ignore them would end it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _DEAF_TO)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                # In a session of its own, so that what ends the terminal's processes leaves it its work.
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def pid(self) -> int:
        return self._process.pid

    def watch(self, pid: int, role: str) -> None:
        """End this process when the supervisor has gone."""
        self._tell(f"+{pid} {role}")

    def forget(self, pid: int) -> None:
        """It has ended; its number may become somebody else's."""
        self._tell(f"-{pid}")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError, ValueError):  # somebody killed the guard: the work goes on without
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def close(self) -> None:
        """Let it go; what it still watches is ended."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


class _Ward:
    """A process to end, held so that its number cannot mean another one where the system allows that."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle: int | None = None
        if hasattr(os, "pidfd_open"):
            with suppress(OSError):
                self._handle = os.pidfd_open(pid)

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, number)
            else:
                os.kill(self.pid, number)

    def ended(self) -> bool:
        if self._handle is not None:
            return bool(select.select([self._handle], [], [], 0)[0])
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)


def end(wards: list[_Ward]) -> None:
    """SIGTERM to all, SIGKILL to those that do not end in GRACE_SECONDS."""
    for ward in wards:
        ward.send(signal.SIGTERM)
    deadline = clock.monotonic() + GRACE_SECONDS
    while not all(ward.ended() for ward in wards):
        if clock.monotonic() >= deadline:
            for ward in wards:
                ward.send(signal.SIGKILL)
            return
        clock.sleep(_POLL_SECONDS)


def main() -> None:
    """Listen until the pipe closes, then end what is left."""
    for number in _DEAF_TO:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _DEAF_TO)
    watched: dict[int, tuple[str, _Ward]] = {}
    for line in sys.stdin:
        words = line[1:].split()
        pid = int(words[0])
        former = watched.pop(pid, None)
        if former is not None:
            former[1].close()
        if line.startswith("+"):
            watched[pid] = (words[1], _Ward(pid))
    end([ward for role, ward in watched.values() if role != "server"])
    end([ward for role, ward in watched.values() if role == "server"])


if __name__ == "__main__":
    main()
