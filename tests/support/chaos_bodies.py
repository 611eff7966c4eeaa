"""Tasks of the chaos tests. Each body leaves its traces in the ledger; workers load this file by its path."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

from callboard import Queue, current, progress, task
from callboard.context import Discard
from tests.support import ledger

#: The same bodies in each form of slot.
THREADS = Queue("threads", isolation="thread")
BOXES = Queue("boxes", isolation="process")
LOOP = Queue("loop", isolation="loop")
#: Served only by workers that a test starts for it.
GRAVES = Queue("graves", isolation="thread")

_RETRY_SECONDS = 0.05


class Trouble(Exception):
    """The failure that a body was told to have."""


@task(queue=THREADS, name="threads.quick")
def quick(number: int = 0) -> int:
    """No work at all."""
    with ledger.entered():
        return number


@task(queue=BOXES, name="boxes.quick")
def quick_in_a_box(number: int = 0) -> int:
    with ledger.entered():
        return number


@task(queue=THREADS, name="threads.nap")
def nap(seconds: float) -> float:
    """Sleep; let other threads run."""
    with ledger.entered():
        time.sleep(seconds)
        return seconds


@task(queue=GRAVES, name="graves.nap")
def nap_in_a_grave(seconds: float) -> float:
    with ledger.entered():
        time.sleep(seconds)
        return seconds


@task(queue=BOXES, name="boxes.nap")
def nap_in_a_box(seconds: float) -> float:
    with ledger.entered():
        time.sleep(seconds)
        return seconds


@task(queue=LOOP, name="loop.nap")
async def nap_on_the_loop(seconds: float) -> float:
    with ledger.entered():
        await asyncio.sleep(seconds)
        return seconds


@task(queue=BOXES, name="boxes.hold")
def hold(seconds: float) -> str:
    """Sleep with the interpreter locked."""
    with ledger.entered():
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
        return "held"


@task(queue=THREADS, name="threads.hold")
def hold_in_a_thread(seconds: float) -> str:
    """The same where it stops the whole worker; the first time only."""
    with ledger.entered():
        if current().attempt == 1:
            ctypes.PyDLL(None).usleep(int(seconds * 1e6))
        return "held"


@task(queue=THREADS, name="threads.fail", delays=[_RETRY_SECONDS])
def fail(times: int) -> int:
    """Fail the first `times` attempts."""
    with ledger.entered():
        if current().attempt <= times:
            raise Trouble(f"attempt {current().attempt}")
        return current().attempt


@task(queue=THREADS, name="threads.discard")
def discard() -> None:
    """Fail for good."""
    with ledger.entered():
        raise Discard("told to")


@task(queue=THREADS, name="threads.talk")
def talk(lines: int, seconds: float = 0.0) -> int:
    """Log lines and progress, spread over `seconds`."""
    with ledger.entered():
        for number in range(1, lines + 1):
            current().logger.info("line %d", number)
            progress(number, lines)
            time.sleep(seconds / lines)
        return lines


@task(queue=THREADS, name="threads.murder")
def murder() -> None:
    """Kill the worker, from inside of it."""
    with ledger.entered():
        os.kill(os.getpid(), signal.SIGKILL)


@task(queue=BOXES, name="boxes.murder")
def murder_from_a_box() -> None:
    """Kill the worker from its child."""
    with ledger.entered():
        worker = os.getppid()
        # Whoever that is otherwise, it is not ours to kill.
        assert b"callboard_worker" in Path(f"/proc/{worker}/cmdline").read_bytes()
        os.kill(worker, signal.SIGKILL)
        time.sleep(60)  # whoever ends it now, it is not itself


@task(queue=BOXES, name="boxes.family")
def family(seconds: float) -> None:
    """Have a process of its own, as a body with ffmpeg has."""
    with ledger.entered():
        child = subprocess.Popen(["sleep", str(seconds)])
        print(f"grandchild {child.pid}")
        current().logger.info("grandchild %d", child.pid)
        child.wait()
