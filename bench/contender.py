"""The contenders: the same no-op task on Callboard, Dramatiq with Results, and Huey with results.

Run as a child process for each measurement, so that none inherits another's threads, connections or imports:
`python -m bench.contender NAME drain|steady|submits COUNT`, the Redis URL on standard input (it holds a
password). Prints one JSON object.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

THREADS = 8


class Contender(Protocol):
    """One task system with a no-op task."""

    def submit(self, number: int) -> Any: ...
    def submit_batch(self, count: int) -> None: ...
    def start(self) -> None: ...
    def finished(self) -> int: ...
    def stop(self) -> None: ...


class Callboard:
    """Native tasks on thread slots."""

    def __init__(self, url: str, threads: int = THREADS, isolation: str = "thread") -> None:
        import dramatiq

        import callboard
        from bench.tasks import NAMESPACE, nothing
        from callboard import settings
        from callboard.broker.broker import CallboardBroker
        from callboard.catalog.queue import Queue
        from callboard.catalog.resolution import resolve_queues
        from callboard.storage import default
        from callboard_worker.definition import definitions
        from callboard_worker.runner import Runner
        from callboard_worker.slots.process import ProcessSlots
        from callboard_worker.slots.thread import ThreadSlots

        callboard.configure(url, namespace=NAMESPACE)
        self.connection = default.connection()
        Queue("bench", isolation=isolation, slots=threads)  # type: ignore[arg-type]

        self.task = nothing
        broker = CallboardBroker(connection=self.connection)
        dramatiq.set_broker(broker)
        known = definitions(broker)
        queues = resolve_queues(
            [d.contract for d in known.values()],
            settings.load({"CALLBOARD_WORKER_SLOTS": str(threads)}),
            ["bench"],
        )

        def make_slots(form: str, capacity: int, runner: Runner) -> Any:
            if form == "process":
                return ProcessSlots(capacity, runner, modules=["bench.tasks"])
            return ThreadSlots(capacity, runner, invoke=runner.invoke)

        self.runner = Runner(self.connection, broker, known, queues, slots=threads, make_slots=make_slots)

    def submit(self, number: int) -> Any:
        return self.task.submit(number)

    def submit_batch(self, count: int) -> None:
        for start in range(0, count, 1000):
            self.task.submit_many([{"number": number} for number in range(start, min(count, start + 1000))])

    def start(self) -> None:
        self.runner.start()

    def finished(self) -> int:
        return int(self.connection.client.zcard(self.connection.keys.queue("bench").state("completed")))

    def stop(self) -> None:
        self.runner.drain(5)


class Dramatiq:
    """RedisBroker with the Results middleware on Redis."""

    def __init__(self, url: str, threads: int = THREADS) -> None:
        import dramatiq
        from dramatiq.brokers.redis import RedisBroker
        from dramatiq.results import Results
        from dramatiq.results.backends.redis import RedisBackend

        self.broker = RedisBroker(url=url, namespace="bench-dramatiq")
        self.backend = RedisBackend(url=url, namespace="bench-results")
        self.broker.add_middleware(Results(backend=self.backend, store_results=True))
        dramatiq.set_broker(self.broker)
        from bench.tasks import declare_actor

        self.actor = declare_actor()
        self.worker = dramatiq.Worker(self.broker, worker_threads=threads, worker_timeout=100)

    def submit(self, number: int) -> Any:
        return self.actor.send(number)

    def submit_batch(self, count: int) -> None:
        for number in range(count):  # it has no batch
            self.actor.send(number)

    def start(self) -> None:
        self.worker.start()

    def finished(self) -> int:
        left = self.broker.client.hlen("bench-dramatiq:bench.msgs")
        return self.total - int(left)

    total = 0

    def stop(self) -> None:
        self.worker.stop()


class Huey:
    """RedisHuey, results stored."""

    def __init__(self, url: str, threads: int = THREADS) -> None:
        from huey import RedisHuey

        self.huey = RedisHuey("bench-huey", url=url)

        @self.huey.task()  # type: ignore[untyped-decorator]
        def nothing(number: int) -> int:
            return number

        self.task = nothing
        self.consumer = self.huey.create_consumer(
            workers=threads, worker_type="thread", initial_delay=0.001, max_delay=0.05, periodic=False
        )

    def submit(self, number: int) -> Any:
        return self.task(number)

    def submit_batch(self, count: int) -> None:
        for number in range(count):
            self.task(number)

    def start(self) -> None:
        self.consumer.start()

    def finished(self) -> int:
        return int(self.huey.storage.result_store_size())

    def stop(self) -> None:
        self.consumer.stop(graceful=True)


CONTENDERS: dict[str, Callable[[str], Any]] = {
    "callboard": Callboard,
    "callboard-process": functools.partial(Callboard, isolation="process"),
    "dramatiq": Dramatiq,
    "huey": Huey,
}
#: A drain that takes longer has gone wrong.
LONGEST_SECONDS = 240.0


def drain(contender: Any, count: int) -> dict[str, float]:
    """Tasks a second from the worker's start until the last result is stored."""
    return _drain(contender, count, 0)


def steady(contender: Any, count: int) -> dict[str, float]:
    """Tasks a second after the first fifth: without the start of slots."""
    return _drain(contender, count, count // 5)


def _drain(contender: Any, count: int, before: int) -> dict[str, float]:
    contender.total = count
    contender.submit_batch(count)
    began = started = time.perf_counter()
    spent = time.process_time()
    done = skipped = 0
    contender.start()
    while (done := contender.finished()) < count:
        if before and not skipped and done >= before:
            skipped, started, spent = done, time.perf_counter(), time.process_time()
        if time.perf_counter() - began > LONGEST_SECONDS:
            raise TimeoutError(f"{done} of {count} tasks after {LONGEST_SECONDS:g} s")
        time.sleep(0.01)
    seconds = time.perf_counter() - started
    spent = time.process_time() - spent
    contender.stop()
    tasks = count - skipped
    return {"tasks": tasks, "seconds": seconds, "per_second": tasks / seconds, "cpu_us": spent / tasks * 1e6}


def submits(contender: Any, count: int) -> dict[str, float]:
    """Single submits and batched ones a second, no worker running."""
    for number in range(100):
        contender.submit(number)
    found: dict[str, float] = {}
    for kind in ("single", "batch"):
        started, spent = time.perf_counter(), time.process_time()
        if kind == "single":
            for number in range(count):
                contender.submit(number)
        else:
            contender.submit_batch(count)
        found[f"{kind}_cpu_us"] = (time.process_time() - spent) / count * 1e6
        found[f"{kind}_per_second"] = count / (time.perf_counter() - started)
    return found


def main() -> None:
    name, what, count = sys.argv[1:4]
    logging.disable(logging.WARNING)
    contender = CONTENDERS[name](sys.stdin.readline().strip())
    print(json.dumps({"drain": drain, "steady": steady, "submits": submits}[what](contender, int(count))))
    sys.stdout.flush()
    os._exit(0)  # some leave threads behind


if __name__ == "__main__":
    main()
