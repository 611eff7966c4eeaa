"""What the kernel offers to keep and to end processes. Linux has all of it; elsewhere the answer is no."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import sys
import threading
from pathlib import Path

from callboard import clock

LINUX = sys.platform == "linux"

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_OOM_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


def _prctl(option: int, argument: int | bytes) -> bool:
    if not LINUX:
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0) == 0)


def adopt_orphans() -> bool:
    """Become the parent of descendants whose own parent ends; False where that cannot be."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    """The name that ps and top show, at most 15 characters."""
    _prctl(_PR_SET_NAME, name.encode()[:15])


def die_with_parent(parent: int) -> bool:
    """Have the kernel send SIGKILL to this process when `parent` dies. False if it is dead already.

    The signal belongs to the thread that is the parent, so that must be one that lives as long as the
    process: of an adopting process it is the main thread.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def outlive_parent() -> None:
    """Undo `die_with_parent`, for a process that hangs on its worker's lifeline.

    The parent's death is told when its main thread ends, and the lifeline closes with its last thread. The
    first would take this process alone, and leave its own children behind with nobody on the line.
    """
    _prctl(_PR_SET_PDEATHSIG, 0)


def kill_on_hangup(lifeline: int) -> int | None:
    """Have the kernel kill this process group once nobody holds the other end of the pipe `lifeline`.

    Works while C code holds the GIL, needs no thread (a second thread would make every fork in a body
    a warning from Python 3.12 on), and takes grandchildren along. Returns the descriptor that holds
    while it is open, None where the kernel cannot.
    """
    set_signal = getattr(fcntl, "F_SETSIG", None)
    if not LINUX or set_signal is None:
        return None
    try:
        # An open file of our own: whom the kernel signals is a property of the open file.
        own = os.open(f"/proc/self/fd/{lifeline}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(own, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(own, set_signal, signal.SIGKILL)
        fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(own, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:
        return None
    return own


def prefer_for_oom() -> None:
    """Make this process the one that the kernel ends first when memory runs out: before the runner."""
    with contextlib.suppress(OSError, ValueError):
        path = Path("/proc/self/oom_score_adj")
        path.write_text(str(min(1000, int(path.read_text()) + 300)))


def pidfd_open(pid: int) -> int | None:
    """A file descriptor that becomes readable when the process ends; None where there is none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def anonymous_bytes(pid: int) -> int | None:
    """Memory of the process that no file backs (RssAnon); None if it is gone or nobody tells."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_bytes().split()
    except OSError:
        return None
    return (int(fields[1]) - int(fields[2])) * _PAGE_BYTES


def resident_bytes() -> int:
    """Memory that this process has now; where nobody tells, the most that it ever had."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most * 1024 if LINUX else most


def data_bytes() -> int | None:
    """Private writable address space of this process, which RLIMIT_DATA limits."""
    try:
        fields = Path("/proc/self/statm").read_bytes().split()
    except OSError:
        return None
    return int(fields[5]) * _PAGE_BYTES


def thread_names() -> list[str]:
    """The names of this process's threads besides the main one, those of native code included."""
    python = {thread.native_id: thread.name for thread in threading.enumerate()}
    try:
        ids = [int(entry.name) for entry in Path("/proc/self/task").iterdir()]
    except OSError:
        return [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    names = []
    for thread_id in ids:
        if thread_id == os.getpid():
            continue
        with contextlib.suppress(OSError):  # It ended while we looked.
            native = Path(f"/proc/self/task/{thread_id}/comm").read_text().strip()
            names.append(python.get(thread_id) or f"{native} (native)")
    return names


def oom_kills() -> int | None:
    """How often the kernel has ended a process here for want of memory; None if nobody tells."""
    for path in _OOM_COUNTERS:
        with contextlib.suppress(OSError):
            for line in path.read_text().splitlines():
                word, _, count = line.partition(" ")
                if word == "oom_kill":
                    return int(count)
    return None


def kill_group(leader: int) -> None:
    """SIGKILL to a process and all of its group; nothing if they are gone.

    Only for a process that has not been reaped: until then neither number can mean another.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    # It may not lead its group yet.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(leader, signal.SIGKILL)


def reap(pid: int, seconds: float = 0.0) -> int | None:
    """Take the status of an ended child: its exit code, or minus the signal. None if it is not to be had.

    What is left of its group is killed first: while the dead leader is unreaped, the number is its own.
    seconds: how long to wait for its end. Never blocks beyond that, whatever SIGCHLD is set to.
    """
    deadline = clock.monotonic() + seconds
    try:
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if clock.monotonic() >= deadline:
                return None
            clock.sleep(0.002)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status)


def describe_exit(code: int | None) -> str:
    """For people: `was killed by SIGSEGV`, `exited with code 3`."""
    if code is None:
        return "ended; its exit status is not known"
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}"
