"""Tasks that the tests of slots run, in children too: well behaved ones and every kind of trouble."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from callboard import progress, task
from callboard.context import Discard, Retry, current, on_child_start, on_child_stop

logger = logging.getLogger("bodies")
STARTED: list[str] = []


@on_child_start
def _note_start() -> None:
    STARTED.append("started")
    if marker := hook_file("start"):
        marker.write_text(str(os.getpid()))


@on_child_stop
def _note_stop() -> None:
    if marker := hook_file("stop"):
        marker.write_text(str(os.getpid()))


def hook_file(name: str) -> Path | None:
    """Where the hooks leave their traces, if a test asks for that."""
    folder = os.environ.get("BODIES_HOOK_FOLDER")
    return Path(folder) / f"{name}-{os.getpid()}" if folder else None


class Unreachable(Exception):
    """Permanent, by contract."""


@task(queue="slots", name="slots.add")
def add(left: int, right: int = 1) -> int:
    return left + right


@task(queue="slots", name="slots.add_async")
async def add_async(left: int, right: int = 1) -> int:
    await asyncio.sleep(0)
    return left + right


@task(queue="slots", name="slots.who")
def who() -> dict[str, Any]:
    now = current()
    return {
        "pid": os.getpid(),
        "id": now.id,
        "attempt": now.attempt,
        "last": now.last_attempt,
        "owner": now.owner,
        "started": STARTED,
    }


@task(queue="slots", name="slots.give")
def give(what: str) -> Any:
    return {
        "nan": float("nan"),
        "object": object(),
        "large": "x" * (1024 * 1024 - 1),
        "largest": "x" * (1024 * 1024 - 2),
        "set": {1},
        "bytes": b"x",
    }[what]


@task(queue="slots", name="slots.fail", permanent=(Unreachable,))
def fail(how: str) -> None:
    match how:
        case "discard":
            raise Discard("bad address")
        case "retry":
            raise Retry(after=1.5, counts=False, message="429")
        case "permanent":
            raise Unreachable("gone")
        case "chained":
            try:
                raise KeyError("inner")
            except KeyError as error:
                raise ValueError("outer") from error
        case "exit":
            sys.exit(3)
        case "deep":
            _deep(2000)
        case "long":
            raise ValueError("y" * 100_000)
        case _:
            raise ValueError("nothing special")


def _deep(left: int) -> None:
    if left == 0:
        raise RuntimeError("bottom")
    # A line of its own for each level, or Python would fold the repetition.
    exec(f"{chr(10) * (left % 50)}_deep({left - 1})", {"_deep": _deep})


@task(queue="slots", name="slots.talk")
def talk() -> None:
    logger.warning("a record %d", 1)
    print("a print")
    print("on stderr", file=sys.stderr)
    current().logger.info("by the task's logger")
    progress(1, 2, "half")
    print("no line end", end="")


@task(queue="slots", name="slots.shout")
def shout(lines: int) -> None:
    for number in range(lines):
        print(f"line {number}")


@task(queue="slots", name="slots.shout_raw")
def shout_raw(megabytes: int) -> None:
    chunk = (b"x" * 1023 + b"\n") * 1024
    for _ in range(megabytes):
        os.write(1, chunk)


@task(queue="slots", name="slots.mutter")
def mutter() -> None:
    """Output that no Python stream sees."""
    os.write(1, b"by os.write\n")
    subprocess.run(["echo", "by echo"], check=True)
    ctypes.CDLL(None).puts(b"by C")
    os.write(2, b"z" * 20_000 + b"\n")


@task(queue="slots", name="slots.spin")
def spin(tidy: bool = True) -> None:
    """Python code until it is stopped."""
    progress(0)
    number = 0
    try:
        while True:
            number += 1
    finally:
        if tidy:
            print("tidied up")


@task(queue="slots", name="slots.chatter")
def chatter() -> None:
    """Reports without a pause."""
    number = 0
    while True:
        print("x" * 100)
        progress(number := number + 1)


@task(queue="slots", name="slots.sleep")
def sleep(seconds: float = 60) -> None:
    progress(0)
    time.sleep(seconds)


@task(queue="slots", name="slots.sleep_async")
async def sleep_async(seconds: float = 60) -> str:
    progress(0)
    try:
        await asyncio.sleep(seconds)
    finally:
        print("tidied up")
    return "slept"


@task(queue="slots", name="slots.await_child")
def await_child() -> None:
    """Waits for a program."""
    progress(0)
    subprocess.run(["sleep", "60"], check=True)


@task(queue="slots", name="slots.wrap")
def wrap() -> None:
    """Turns whatever stops it into an error of its own, as many a client library does."""
    progress(0)
    try:
        time.sleep(60)
    except Exception as error:
        raise ConnectionError("the call failed") from error


@task(queue="slots", name="slots.swallow")
def swallow(seconds: float = 60) -> str:
    """Heeds no stop."""
    progress(0)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            while time.monotonic() < until:
                time.sleep(0.01)
        except Exception as error:
            print(f"swallowed {type(error).__name__}")
    return "done"


@task(queue="slots", name="slots.swallow_async")
async def swallow_async(seconds: float = 60) -> str:
    progress(0)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            print("swallowed")
    return "done"


@task(queue="slots", name="slots.hold_gil")
def hold_gil(length: int = 10**11) -> None:
    """C code that lets no other Python run and looks at no signal, for ages."""
    while True:
        # A stop may come just before; this body is deaf to that one as well.
        with contextlib.suppress(Exception):
            progress(0)
            sum(range(length))


@task(queue="slots", name="slots.die")
def die(how: str) -> None:
    print("last words")
    match how:
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "usr1":
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            progress(0)
            time.sleep(60)
        case "close":
            os.closerange(3, 256)
            time.sleep(60)  # nobody can tell it anything any more


@task(queue="slots", name="slots.hoard")
def hoard(megabytes: int, pause: float = 0.005, at_once: bool = False) -> int:
    if at_once:
        return len(bytearray(megabytes * 1024 * 1024))
    kept = []
    for _ in range(megabytes):
        kept.append(bytearray(b"x") * (1024 * 1024))
        time.sleep(pause)  # or it is through before anybody looks at its memory
    return len(kept)


@task(queue="slots", name="slots.leave_behind")
def leave_behind(how: str, then: str = "sleep") -> None:
    """Starts a process that outlives the body, tells its number, and ends as told."""
    if how == "program":
        left = subprocess.Popen(["sleep", "300"]).pid
    elif how == "fork":
        left = os.fork()
        if left == 0:
            time.sleep(300)
            os._exit(0)
    else:
        # A daemon: a session of its own, and soon an orphan. (One that ends at once its shell might reap.)
        shell = subprocess.run(
            ["sh", "-c", "setsid sleep 0.5 >/dev/null 2>&1 & echo $!"],
            stdout=subprocess.PIPE,
            check=True,
        )
        left = int(shell.stdout)
    print(f"left {left}")
    progress(left)
    match then:
        case "sleep":
            time.sleep(60)
        case "exit":
            os._exit(1)


@task(queue="slots", name="slots.fork_home")
def fork_home() -> int:
    """Forks, and both copies return."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    return os.getpid()


@task(queue="slots", name="slots.use_programs")
def use_programs() -> dict[str, Any]:
    """What a body may do with processes of its own."""
    program = subprocess.Popen(["sleep", "60"])
    program.terminate()
    terminated = program.wait(10)
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=time.sleep, args=(60,))
    worker.start()
    worker.terminate()
    worker.join(10)
    code = worker.exitcode
    talker = context.Process(target=_speak)
    talker.start()
    talker.join(10)
    return {"program": terminated, "process": code, "threads": threading.active_count()}


def _speak() -> None:
    logging.getLogger("bodies").warning("from a forked process")
    print("printed by a forked process", flush=True)


@task(queue="slots", name="slots.signals")
def signals() -> dict[str, Any]:
    """INT and TERM at this process, as a terminal or an impatient operator sends them."""
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    return {"session": os.getsid(0) == os.getpid(), "group": os.getpgrp() == os.getpid()}


@task(queue="slots", name="slots.measure")
def measure(text: str) -> int:
    return len(text)


@task(queue="slots", name="slots.random")
def draw() -> list[float]:
    import random

    return [random.random() for _ in range(4)]


def _target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return "the listing itself"


@task(queue="slots", name="slots.environment")
def environment() -> dict[str, Any]:
    import resource

    return {
        "data_limit": resource.getrlimit(resource.RLIMIT_DATA)[0],
        "oom": int(Path("/proc/self/oom_score_adj").read_text()),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "parent": os.getppid(),
        "descriptors": {entry: _target(entry) for entry in os.listdir("/proc/self/fd")},
    }
