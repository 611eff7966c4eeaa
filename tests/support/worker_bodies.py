"""Tasks of the worker's tests, the same ones in each form of slot. Workers load this file by its path."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq import Middleware

import callboard_worker.prelude  # noqa: F401 - before the first actor, or Dramatiq would look for RabbitMQ
from callboard import Queue, current, progress, task
from callboard.context import Cancelled, Discard, Retry, SoftLimitExceeded

BOX = Queue("box", isolation="process")
THREAD = Queue("thread", isolation="thread")
LOOP = Queue("coro", isolation="loop", slots=1000)
_QUICK = [0.02]
_STEP_SECONDS = 0.02


class Trouble(Exception):
    """The failure that a body was told to have."""


class Final(Exception):
    """A failure that no other attempt would mend."""


def in_both(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A task in the queues `box` and `thread`, named after them and the function."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        for queue in (BOX, THREAD):
            name = f"{queue.name}.{function.__name__}"
            task(queue=queue, name=name, **{"delays": _QUICK, **options})(function)
        return function

    return declare


def on_loop(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A task in the queue `coro`, named after it and the function without its first letter, an `a`."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        name = f"coro.{function.__name__[1:]}"
        return task(queue=LOOP, name=name, **{"delays": _QUICK, **options})(function)

    return declare


@in_both()
def tell(text: str = "hello") -> dict[str, Any]:
    """Use all that a body has."""
    me = current()
    print(f"printed {text}")
    me.logger.warning("logged %s", text)
    progress(1, 2, text)
    return {"text": text, "id": me.id, "attempt": me.attempt, "pid": os.getpid(), "name": me.name}


@on_loop()
async def atell(text: str = "hello") -> dict[str, Any]:
    await asyncio.sleep(0)
    return tell(text)


@task(queue=BOX, name="box.atell")
async def tell_async_in_a_box(text: str = "hello") -> dict[str, Any]:
    await asyncio.sleep(0.01)
    return tell(text)


@task(queue=THREAD, name="thread.atell")
async def tell_async_in_a_thread(text: str = "hello") -> dict[str, Any]:
    await asyncio.sleep(0.01)
    return tell(text)


def _nap(seconds: float) -> str:
    print("sleeping")
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            time.sleep(_STEP_SECONDS)
    except (Cancelled, SoftLimitExceeded) as stop:
        current().logger.info("tidied after %s", type(stop).__name__)
        raise
    return "slept"


async def _anap(seconds: float) -> str:
    print("sleeping")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        current().logger.info("tidied after CancelledError")
        raise
    return "slept"


@in_both()
def nap(seconds: float) -> str:
    """Sleep; tidy up when stopped."""
    return _nap(seconds)


@on_loop()
async def anap(seconds: float) -> str:
    return await _anap(seconds)


@in_both(retries=0, soft_limit=0.8, hard_limit=20)
def soft(seconds: float) -> str:
    """Sleep beyond the soft limit."""
    return _nap(seconds)


@on_loop(retries=0, soft_limit=0.8, hard_limit=20)
async def asoft(seconds: float) -> str:
    return await _anap(seconds)


@in_both(retries=1, soft_limit=0.6, hard_limit=0.9)
def stubborn(seconds: float = 5.0) -> str:
    """Sleep on, whatever is asked."""
    end = time.monotonic() + seconds
    print("sleeping")
    while time.monotonic() < end:
        try:
            time.sleep(_STEP_SECONDS)
        except (Cancelled, SoftLimitExceeded):
            print("not me")
    return "slept"


@on_loop(retries=1, soft_limit=0.6, hard_limit=0.9)
async def astubborn(seconds: float = 5.0) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            await asyncio.sleep(_STEP_SECONDS)
        except asyncio.CancelledError:
            print("not me")
    return "slept"


@in_both()
def deaf(seconds: float = 60.0) -> str:
    """Heed no cancel, within generous limits."""
    return stubborn(seconds)


@in_both()
def last_word(word: str) -> str:
    """Answer a cancel by an end of its own."""
    try:
        _nap(60)
    except Cancelled:
        if word == "fail":
            raise Trouble("on the way out") from None
        if word == "retry":
            raise Retry(after=0.05) from None
        if word == "snooze":
            raise Retry(after=0.05, counts=False) from None
    return "finished all the same"


@in_both(permanent=[Final])
def fail(how: str = "trouble", times: int = 100) -> int:
    """Fail the first `times` attempts."""
    attempt = current().attempt
    if attempt <= times:
        match how:
            case "discard":
                raise Discard("told to")
            case "final":
                raise Final("told to")
            case "exit":
                sys.exit(3)
            case "retry":
                raise Retry(after=0.03, message="once more")
            case _:
                raise Trouble(f"attempt {attempt}")
    return attempt


@in_both()
def snooze(until: float) -> int:
    """Run again until the clock says so; spend no attempt."""
    if time.time() < until:
        raise Retry(after=0.05, counts=False, message="not yet")
    return current().attempt


@in_both()
def flood(lines: int) -> str:
    """Say more than any log keeps, and not only text."""
    os.write(1, bytes(range(256)))
    for number in range(lines):
        print("line", number)
        progress(number, lines)
    return "flooded"


@task(queue=BOX, name="box.grow", retries=0, memory_limit="96MiB")
def grow() -> int:
    """Take more memory than allowed."""
    held = []
    for _ in range(600):
        held.append(bytearray(os.urandom(1024)) * 1024)
        time.sleep(0.002)  # or it is through before anybody looks at its memory
    return len(held)


@task(queue=BOX, name="box.crash", retries=1, delays=_QUICK)
def crash(how: str) -> None:
    """Take this process down."""
    match how:
        case "exit":
            os._exit(7)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "close":
            os.closerange(0, 1000)


@task(queue=BOX, name="box.vandal")
def vandal() -> str:
    """Leave the process in a state."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    os.environ.clear()
    sys.setrecursionlimit(200)
    threading.Thread(target=time.sleep, args=(600,), daemon=False).start()
    return "done"


@in_both()
def twin() -> str:
    """Fork, and let both come home."""
    return "child" if os.fork() == 0 else "parent"


@on_loop()
async def atwin() -> str:
    return "child" if os.fork() == 0 else "parent"


@task(queue=THREAD, name="thread.lingering")
def lingering() -> str:
    """Leave a thread that nobody can end."""
    threading.Thread(target=time.sleep, args=(600,), daemon=False).start()
    return "done"


@dramatiq.actor(queue_name="thread", actor_name="thread.actor", max_retries=1, min_backoff=10, max_backoff=20)
def actor(text: str) -> str:
    """A Dramatiq actor beside the tasks."""
    if text == "fail":
        raise Trouble(text)
    return text


@dramatiq.actor(queue_name="box", actor_name="box.actor", max_retries=0)
def actor_in_a_box(text: str) -> str:
    return text


@dramatiq.actor(queue_name="coro", actor_name="coro.actor", max_retries=0)
async def actor_on_the_loop(text: str) -> str:
    await asyncio.sleep(0)
    return text


class Hostile(Middleware):
    """Leaves by sys.exit from the hook that a message names as its option `hostile`."""

    def _leave(self, hook: str, message: dramatiq.MessageProxy) -> None:
        if message.options.get("hostile") == hook:
            sys.exit(3)

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        self._leave("before_process_message", message)

    def after_process_message(
        self, broker: dramatiq.Broker, message: dramatiq.MessageProxy, **_: Any
    ) -> None:
        self._leave("after_process_message", message)

    def before_ack(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        self._leave("before_ack", message)

    def after_ack(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        self._leave("after_ack", message)


dramatiq.get_broker().add_middleware(Hostile())
