"""Dramatiq's actors on our broker: failures, retries, limits, shutdowns, results as their options have it."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import pairwise
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import AsyncIO, Shutdown
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend

from callboard import context
from callboard.broker.broker import CallboardBroker
from tests.conformance.hooked import hooked
from tests.conformance.surroundings import worker
from tests.support.board import Board
from tests.support.waiting import wait_until

_JOIN_MS = 15_000


def test_a_failure_tells_who_asked(redis_broker, redis_worker, record) -> None:
    """on_failure at each attempt, on_retry_exhausted once, with the traceback that Retries keeps."""
    failures: list[dict[str, Any]] = []
    exhausted: list[Any] = []

    @dramatiq.actor
    def failed(message_data, exception_data):
        failures.append(exception_data)

    @dramatiq.actor
    def gave_up(message_data, retries):
        exhausted.append((message_data, retries))

    @dramatiq.actor(
        max_retries=2, min_backoff=1, max_backoff=1, on_failure="failed", on_retry_exhausted="gave_up"
    )
    def work():
        raise RuntimeError("no way")

    message = work.send()
    redis_broker.join("default", timeout=_JOIN_MS)
    assert failures == [{"type": "RuntimeError", "message": "no way"}] * 3
    [(data, retries)] = exhausted
    assert retries == {"retries": 2, "max_retries": 2}
    assert data["message_id"] == message.message_id
    assert 'RuntimeError("no way")' in data["options"]["traceback"]
    assert (record(message).state, record(message).reason) == ("failed", "exhausted")
    assert [attempt.outcome for attempt in record(message).attempts] == ["failed"] * 3


def test_expected_exceptions_are_not_retried(redis_broker, redis_worker, record) -> None:
    class Expected(Exception):
        pass

    failures: list[Any] = []

    @dramatiq.actor
    def failed(message_data, exception_data):
        failures.append(exception_data["type"])

    @dramatiq.actor(throws=Expected, max_retries=5, on_failure="failed")
    def work():
        raise Expected("as always")

    message = work.send()
    redis_broker.join("default", timeout=_JOIN_MS)
    kept = record(message)
    assert (kept.state, kept.reason, kept.attempt) == ("failed", "permanent", 1)
    assert kept.error["retryable"] is False
    assert failures == ["Expected"]


def test_retry_when_decides(redis_broker, redis_worker, record) -> None:
    class Passing(Exception):
        pass

    runs: list[int] = []

    @dramatiq.actor(
        retry_when=lambda retries, error: isinstance(error, Passing), min_backoff=1, max_backoff=1
    )
    def work():
        runs.append(1)
        raise Passing if len(runs) < 4 else RuntimeError("for good")

    message = work.send()
    redis_broker.join("default", timeout=_JOIN_MS)
    assert len(runs) == 4
    assert record(message).state == "failed"
    assert record(message).max_attempts is None


def test_dramatiqs_retry_sets_the_delay(redis_broker, redis_worker, record) -> None:
    runs: list[float] = []

    @dramatiq.actor(max_retries=3, min_backoff=60_000)
    def work():
        runs.append(time.monotonic())
        if len(runs) < 3:
            raise dramatiq.Retry("the other side is busy", delay=100)

    message = work.send()
    redis_broker.join("default", timeout=_JOIN_MS)
    assert record(message).state == "completed"
    # Redis counts whole milliseconds on a clock of its own; the actor's backoff is a minute.
    assert [0.09 <= b - a < 30 for a, b in pairwise(runs)] == [True, True]


def test_no_retries_without_the_middleware(redis_url, namespace, host) -> None:
    broker = CallboardBroker(redis_url, namespace=namespace, middleware=[])
    dramatiq.set_broker(broker)
    runs: list[int] = []

    @dramatiq.actor
    def work():
        runs.append(1)
        raise RuntimeError("no way")

    with worker(broker, worker_threads=2, worker_timeout=100):
        message = work.send()
        broker.join("default", timeout=_JOIN_MS)
        kept = Board(broker.connection).record(broker.task_id(message))
    assert runs == [1]
    assert (kept.state, kept.max_attempts) == ("failed", 1)
    broker.close()
    dramatiq.broker.global_broker = None


def test_an_actor_may_be_async(redis_broker, host) -> None:
    redis_broker.add_middleware(AsyncIO())
    waiting = asyncio.Barrier(4)

    @dramatiq.actor
    async def work(number):
        await waiting.wait()
        return number

    with worker(redis_broker, worker_threads=4, worker_timeout=100):
        messages = [work.send(number) for number in range(4)]
        redis_broker.join("default", timeout=_JOIN_MS)
    board = Board(redis_broker.connection)
    assert [board.record(redis_broker.task_id(m)).result for m in messages] == [0, 1, 2, 3]


def test_an_actor_may_ask_for_the_shutdown(redis_broker, host) -> None:
    running, told = threading.Event(), threading.Event()

    @dramatiq.actor(notify_shutdown=True, max_retries=3, min_backoff=60_000)
    def work():
        running.set()
        try:
            for _ in range(1000):
                time.sleep(0.01)  # in steps: what is raised into a thread waits for the end of one
        except Shutdown:
            told.set()
            raise

    with worker(redis_broker, worker_threads=1, worker_timeout=100):
        message = work.send()
        assert running.wait(10)
    assert told.is_set()
    kept = Board(redis_broker.connection).record(redis_broker.task_id(message))
    assert (kept.state, kept.reason) == ("pending", "backoff")


def test_a_result_that_is_no_json_reaches_dramatiqs_store(redis_broker, redis_worker, record) -> None:
    store = StubBackend(encoder=dramatiq.PickleEncoder())
    redis_broker.add_middleware(Results(backend=store))

    @dramatiq.actor(store_results=True, max_retries=0)
    def work():
        return 3 + 4j

    message = work.send()
    redis_broker.join("default", timeout=_JOIN_MS)
    assert message.get_result(backend=store) == 3 + 4j
    assert (record(message).state, record(message).result) == ("completed", None)


@pytest.mark.parametrize("host", ["runner"], indirect=True)
class TestOnOurRunner:
    """What Dramatiq's worker does not offer, or gets wrong."""

    @pytest.fixture(autouse=True)
    def running(self, redis_broker, redis_worker) -> None:
        """The runner."""

    def test_hooks_may_change_what_the_body_gets(self, redis_broker, record) -> None:
        def unseal(broker, message):
            message.kwargs["secret"] = message.kwargs["secret"][::-1]

        # Before the runner reads which middleware there is: it starts with the first queue.
        hooked(redis_broker, before_process_message=unseal)

        @dramatiq.actor
        def work(secret):
            return secret

        message = work.send(secret="emases")
        redis_broker.join("default", timeout=_JOIN_MS)
        assert record(message).result == "sesame"

    def test_a_time_limit_never_strikes_a_hook(self, redis_broker, record) -> None:
        """Dramatiq's own reports such a success as a failure, and runs it again."""
        hooked(redis_broker, after_process_message=lambda *_, **__: time.sleep(1.2))
        runs: list[int] = []

        @dramatiq.actor(time_limit=800, max_retries=2)
        def work():
            runs.append(1)
            return "good"

        message = work.send()
        redis_broker.join("default", timeout=_JOIN_MS)
        assert runs == [1]
        assert (record(message).state, record(message).result) == ("completed", "good")

    def test_a_time_limit_strikes_the_body(self, redis_broker, record) -> None:
        @dramatiq.actor(time_limit=200, max_retries=0)
        def work():
            while True:
                time.sleep(0.01)

        message = work.send()
        redis_broker.join("default", timeout=_JOIN_MS)
        kept = record(message)
        assert (kept.state, kept.reason) == ("failed", "timeout")

    def test_discard_ends_a_message_and_tells_who_asked(self, redis_broker, record) -> None:
        failures: list[Any] = []

        @dramatiq.actor
        def failed(message_data, exception_data):
            failures.append((message_data["actor_name"], exception_data["message"]))

        @dramatiq.actor(max_retries=5, on_failure="failed")
        def work():
            raise context.Discard("bad address")

        message = work.send()
        redis_broker.join("default", timeout=_JOIN_MS)
        assert (record(message).state, record(message).reason) == ("failed", "permanent")
        assert failures == [("work", "bad address")]

    def test_a_snooze_costs_no_attempt(self, redis_broker, record) -> None:
        runs: list[int] = []

        @dramatiq.actor(max_retries=0)
        def work():
            runs.append(context.current().attempt)
            if len(runs) < 4:
                raise context.Retry(after=0.01, counts=False, message="the provider asks us to wait")
            return "done"

        message = work.send()
        wait_until(lambda: record(message).state == "completed", 10)
        assert runs == [1, 1, 1, 1]
        assert record(message).interruptions[0].cause == "the provider asks us to wait"

    def test_our_retry_sets_the_delay(self, redis_broker, record) -> None:
        runs: list[int] = []

        @dramatiq.actor(max_retries=1, min_backoff=60_000)
        def work():
            runs.append(context.current().attempt)
            if len(runs) < 2:
                raise context.Retry(after=0.05)

        message = work.send()
        redis_broker.join("default", timeout=_JOIN_MS)
        assert runs == [1, 2]
        assert record(message).state == "completed"

    def test_progress_and_logs_of_an_actor(self, redis_broker, record) -> None:
        @dramatiq.actor
        def work():
            context.progress(3, 10, "reading rows")
            context.current().logger.warning("hello")
            print("printed")

        message = work.send()
        redis_broker.join("default", timeout=_JOIN_MS)
        assert record(message).progress["message"] == "reading rows"
        assert record(message).log_lines == 2

    def test_a_cancelled_actor_is_not_retried(self, redis_broker, record) -> None:
        running = threading.Event()

        @dramatiq.actor(max_retries=5)
        def work():
            running.set()
            while True:
                time.sleep(0.01)

        message = work.send()
        assert running.wait(10)
        Board(redis_broker.connection).cancel(redis_broker.task_id(message))
        redis_broker.join("default", timeout=_JOIN_MS)
        assert (record(message).state, record(message).reason) == ("cancelled", "cancelled")

    def test_no_limit_is_infinity(self, redis_broker, record) -> None:
        """As Dramatiq's documentation has it."""

        @dramatiq.actor(time_limit=float("inf"))
        def work():
            return "unhurried"

        message = work.send()
        hurried = work.send_with_options(time_limit=60_000)
        redis_broker.join("default", timeout=_JOIN_MS)
        assert record(message).result == record(hurried).result == "unhurried"
