"""A Dramatiq program as they are written, but for its broker. The tests run it in processes of its own.

Bodies leave traces in the file PROGRAM_TRACES: how often something ran is counted there, not believed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import dramatiq
import redis
from dramatiq.middleware import AsyncIO, CurrentMessage, GroupCallbacks, Middleware
from dramatiq.rate_limits.backends import RedisBackend as Barriers
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from callboard import CallboardBroker

TRACES = Path(os.environ["PROGRAM_TRACES"])
BACK_OFF: Any = {"min_backoff": 20, "max_backoff": 40}


def client() -> redis.Redis:
    """For Dramatiq's own backends, whose blocking reads want no time-out."""
    return redis.Redis.from_url(os.environ["PROGRAM_REDIS_URL"], socket_timeout=None)


def trace(word: str) -> int:
    """Leave a trace; how many there are of it now."""
    with TRACES.open("a") as file:
        file.write(f"{word} {os.getpid()}\n")
    return traces().count(word)


def traces() -> list[str]:
    """What has been left so far."""
    return [line.split()[0] for line in TRACES.read_text().splitlines()] if TRACES.exists() else []


class Boots(Middleware):
    """Notes which processes were told of their start, and dies on demand."""

    booted: int | None = None

    def after_process_boot(self, broker):
        Boots.booted = os.getpid()

    def after_ack(self, broker, message):
        if message.actor_name == "last_words":
            os.kill(os.getpid(), signal.SIGKILL)


broker = CallboardBroker()
broker.add_middleware(CurrentMessage())
broker.add_middleware(AsyncIO())
broker.add_middleware(Results(backend=RedisBackend(client=client())))
broker.add_middleware(GroupCallbacks(Barriers(client=client())))
broker.add_middleware(Boots())
dramatiq.set_broker(broker)


class Passing(Exception):
    """A failure that may pass. It does not cross processes by its text alone."""

    def __init__(self, again: bool) -> None:
        super().__init__("it may pass", again)
        self.again = again


def may_pass(retries: int, error: BaseException) -> bool:
    return isinstance(error, Passing) and error.again


@dramatiq.actor(queue_name="program", store_results=True)
def add(x, y):
    return x + y


@dramatiq.actor(queue_name="elsewhere", store_results=True)
def double(x):
    return x * 2


@dramatiq.actor(queue_name="program")
def note(*words):
    trace("-".join(map(str, words)))


@dramatiq.actor(queue_name="program")
def finale(word):
    trace(word)


@dramatiq.actor(queue_name="program", max_retries=3, **BACK_OFF)
def flaky(word, failures):
    if trace(word) <= failures:
        raise RuntimeError(f"{word} does not work yet")
    return "at last"


@dramatiq.actor(queue_name="program", max_retries=0)
def hopeless():
    raise LookupError("never")


@dramatiq.actor(queue_name="program", throws=(LookupError, Passing))
def expected():
    raise LookupError("as always")


@dramatiq.actor(queue_name="program", max_retries=1, on_retry_exhausted="exhausted", **BACK_OFF)
def gives_up(word):
    raise LookupError(word)


@dramatiq.actor(queue_name="program")
def exhausted(message_data, retries):
    where = "in gives_up" in message_data["options"]["traceback"]
    trace(f"exhausted-{message_data['args'][0]}-{retries['retries']}-{where}")


@dramatiq.actor(queue_name="program")
def failed(message_data, error):
    trace(f"failed-{message_data['args'][0]}-{error['type']}-{error['message']}")


@dramatiq.actor(queue_name="program")
def succeeded(message_data, result):
    trace(f"succeeded-{message_data['args'][0]}-{result}")


@dramatiq.actor(queue_name="program", retry_when=may_pass, **BACK_OFF)
def choosy(word):
    raise Passing(again=trace(word) < 3)


@dramatiq.actor(queue_name="program", time_limit=300, max_retries=0)
def endless():
    while True:
        time.sleep(0.01)


@dramatiq.actor(queue_name="ordered", priority=10)
def low(word):
    trace(word)


@dramatiq.actor(queue_name="ordered", priority=0)
def high(word):
    trace(word)


@dramatiq.actor(queue_name="program")
def who():
    message = CurrentMessage.get_current_message()
    assert message is not None
    return [message.message_id, Boots.booted == os.getpid()]


@dramatiq.actor(queue_name="program")
def several(word, times):
    """Sends its own message again, as some programs poll."""
    if trace(word) < times:
        message = CurrentMessage.get_current_message()
        assert message is not None
        broker.enqueue(message, delay=10)


@dramatiq.actor(queue_name="program", max_retries=1, **BACK_OFF)
def crash(word):
    if trace(word) == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(60)  # another thread may be the one that takes it
    return "alive"


@dramatiq.actor(queue_name="asleep", max_retries=1, **BACK_OFF)
async def nap(word, seconds):
    message = CurrentMessage.get_current_message()
    assert message is not None
    await asyncio.sleep(seconds)
    if not message.options.get("retries"):
        raise TimeoutError("once more")
    return [word, message.kwargs["word"]]


@dramatiq.actor(queue_name="program", max_retries=0)
def linger(word, seconds):
    trace(f"{word}-start")
    time.sleep(seconds)
    trace(f"{word}-end")


@dramatiq.actor(queue_name="program")
def stubborn(word):
    """The first one to run it never ends."""
    if trace(word) == 1:
        time.sleep(600)
    return "second"


@dramatiq.actor(queue_name="program")
def last_words(word):
    """Its worker dies as soon as its end is recorded."""
    return trace(word)
