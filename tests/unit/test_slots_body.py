"""The frame around a body: arguments in, outcome out. With the plainest of hosts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import CurrentMessage, TimeLimitExceeded

from callboard.context import Cancelled, SoftLimitExceeded, current_or_none
from callboard_worker.slots import body
from callboard_worker.slots.slot import Outcome, Why
from tests.support import bodies
from tests.support.recording import assignment

assert bodies.add.name == "slots.add"


class Here:
    """Runs bodies in place; `strike` makes them raise what a stop would."""

    def __init__(self, why: Why | None = None, strike: BaseException | None = None) -> None:
        self.stopping = why
        self.strike = strike
        self.lines: list[tuple[str, str]] = []

    def log(self, level: str, text: str) -> None:
        self.lines.append((level, text))

    def progress(self, blob: bytes) -> None: ...

    def call(self, function: Any, args: Any, kwargs: Any) -> Any:
        if self.strike is not None:
            raise self.strike
        return function(*args, **kwargs)

    def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(coroutine)


def execute(name: str, payload: Any = None, host: Here | None = None, **options: Any) -> Outcome:
    return body.execute(assignment(name, payload, **options), host or Here())


def test_a_result_is_json_and_the_value_itself() -> None:
    outcome = execute("slots.add", {"left": 2})
    assert (outcome.kind, outcome.result, outcome.value) == ("completed", b"3", 3)
    assert outcome.error is None
    assert outcome.run_ms >= 0


def test_an_async_body_is_driven() -> None:
    assert execute("slots.add_async", {"left": 2}).value == 3


async def test_an_async_body_is_awaited_on_a_loop() -> None:
    for name in ("slots.add_async", "slots.add"):
        outcome = await body.execute_async(assignment(name, {"left": 2}), Here())
        assert (outcome.kind, outcome.value) == ("completed", 3)


def test_the_body_knows_its_task_and_nobody_does_afterwards() -> None:
    given = assignment("slots.who", attempt=4)
    known = json.loads(body.execute(given, Here()).result or b"")
    assert known["id"] == given.task_id
    assert (known["attempt"], known["last"], known["owner"]) == (4, True, "team-a")
    assert current_or_none() is None


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        ({"left": "two"}, "#/payload/left"),
        ({}, "#/payload/left"),
        ({"left": 1, "middle": 2}, "#/payload/middle"),
    ],
)
def test_a_payload_that_does_not_fit_fails_for_good(payload: dict[str, Any], word: str) -> None:
    error = execute("slots.add", payload).error
    assert error is not None
    assert (error.type, error.retryable) == ("InvalidPayload", False)
    assert word in error.message


def test_an_undecodable_payload_fails_for_good() -> None:
    given = replace(assignment("slots.add"), payload=b'{"left": 1')
    error = body.execute(given, Here()).error
    assert error is not None
    assert (error.type, error.retryable) == ("InvalidPayload", False)


def test_a_name_that_is_not_known_here_may_be_known_elsewhere() -> None:
    error = execute("slots.ad").error
    assert error is not None
    assert (error.type, error.retryable) == ("UnknownTask", True)
    assert "Did you mean 'slots.add'?" in error.message


@pytest.mark.parametrize(
    ("how", "error_type", "retryable"),
    [
        ("discard", "Discard", False),
        ("permanent", "Unreachable", False),
        ("anyhow", "ValueError", True),
        ("exit", "SystemExit", True),
    ],
)
def test_errors_are_classed_where_the_exception_is(how: str, error_type: str, retryable: bool) -> None:
    outcome = execute("slots.fail", {"how": how})
    assert outcome.kind == "failed"
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.retryable) == (error_type, retryable)
    assert type(outcome.exception).__name__ == error_type


def test_a_wish_to_run_again_is_no_failure() -> None:
    outcome = execute("slots.fail", {"how": "retry"})
    assert (outcome.kind, outcome.retry_after_ms, outcome.counts) == ("retry", 1500, False)
    assert outcome.error is not None
    assert outcome.error.message == "429"


def test_a_traceback_begins_in_the_body() -> None:
    error = execute("slots.fail", {"how": "chained"}).error
    assert error is not None
    assert error.traceback is not None
    frames = [line for line in error.traceback.splitlines() if line.startswith("  File")]
    assert [line for line in frames if "callboard_worker" in line] == []
    assert sum("bodies.py" in line for line in frames) == 2
    assert "direct cause" in error.traceback
    assert error.traceback.endswith("ValueError: outer\n")


def test_a_long_traceback_keeps_its_end_and_a_long_message_its_beginning() -> None:
    deep = execute("slots.fail", {"how": "deep"}).error
    assert deep is not None
    assert deep.traceback is not None
    assert len(deep.traceback.encode()) <= 16 * 1024
    assert deep.traceback.startswith("…\n")
    assert "RecursionError" in deep.traceback or deep.traceback.endswith("RuntimeError: bottom\n")
    long = execute("slots.fail", {"how": "long"}).error
    assert long is not None
    assert len(long.message.encode()) <= 4 * 1024
    assert long.message.startswith("yyy")


def test_an_error_that_cannot_even_be_shown_is_one() -> None:
    class Vain(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no mirror")

    error = body.task_error(Vain(), retryable=True)
    assert error.type.endswith("Vain")
    assert "RuntimeError" in error.message


@pytest.mark.parametrize("what", ["nan", "object", "bytes", "large"])
def test_a_result_that_cannot_be_kept_is_a_failure_for_good(what: str) -> None:
    outcome = execute("slots.give", {"what": what})
    assert outcome.kind == "failed"
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.retryable) == ("BadResult", False)
    if what == "large":
        assert "1,048,577 bytes" in outcome.error.message
        assert "1,048,576" in outcome.error.message


def test_the_largest_result_is_kept() -> None:
    assert len(execute("slots.give", {"what": "largest"}).result or b"") == 1024 * 1024


@pytest.mark.parametrize(
    ("why", "raised", "kind"),
    [
        ("limit", SoftLimitExceeded(), "timeout"),
        ("limit", asyncio.CancelledError(), "timeout"),
        ("cancel", Cancelled(), "cancelled"),
        ("terminate", Cancelled(), "cancelled"),
        ("lost", Cancelled(), "lost"),
        # The body failed by itself just before.
        ("limit", ValueError("own"), "failed"),
        (None, SoftLimitExceeded(), "failed"),
    ],
)
def test_a_stop_is_told_from_a_failure(why: Why | None, raised: BaseException, kind: str) -> None:
    assert execute("slots.add", {"left": 1}, Here(why, raised)).kind == kind


def test_a_stop_is_known_behind_the_error_that_it_caused() -> None:
    wrapped = ConnectionError("the call failed")
    wrapped.__cause__ = SoftLimitExceeded()
    assert execute("slots.add", {"left": 1}, Here("limit", wrapped)).kind == "timeout"
    group = ExceptionGroup("several", [ValueError(), wrapped])
    assert execute("slots.add", {"left": 1}, Here("limit", group)).kind == "timeout"


def test_memory_that_ran_out_is_named_where_there_is_a_limit() -> None:
    short = Here(strike=MemoryError())
    assert execute("slots.add", {"left": 1}, short).kind == "failed"
    assert execute("slots.add", {"left": 1}, short, memory_limit_bytes=1).kind == "memory"


# Dramatiq's actors.


@pytest.fixture
def broker() -> Iterator[StubBroker]:
    former = dramatiq.broker.global_broker
    stub = StubBroker()
    dramatiq.set_broker(stub)
    yield stub
    stub.close()
    dramatiq.set_broker(former)  # type: ignore[arg-type]


def send(message: dramatiq.Message[Any], host: Here | None = None) -> Outcome:
    encoded = message.encode()
    return body.execute(assignment(message.actor_name, message=encoded), host or Here())


def test_an_actor_gets_its_arguments_and_its_message(broker: StubBroker) -> None:
    seen: list[Any] = []

    @dramatiq.actor
    def echo(*args: Any, **kwargs: Any) -> Any:
        seen.append(CurrentMessage.get_current_message())
        return [list(args), kwargs]

    message = echo.message(1, two=2)
    assert send(message).value == [[1], {"two": 2}]
    assert seen[0].message_id == message.message_id
    assert CurrentMessage.get_current_message() is None


def test_an_async_actor_runs_without_dramatiqs_own_loop(broker: StubBroker) -> None:
    @dramatiq.actor
    async def later(number: int) -> int:
        await asyncio.sleep(0)
        return number + 1

    assert send(later.message(1)).value == 2


async def test_an_async_actor_is_awaited_on_the_loop(broker: StubBroker) -> None:
    @dramatiq.actor
    async def later(number: int) -> int:
        await asyncio.sleep(0)
        return number + 1

    outcome = await body.execute_async(assignment("later", message=later.message(1).encode()), Here())
    assert outcome.value == 2


def test_an_actors_throws_are_final_and_its_retry_has_its_delay(broker: StubBroker) -> None:
    @dramatiq.actor(throws=(KeyError,))
    def fall(how: str) -> None:
        if how == "retry":
            raise dramatiq.errors.Retry("later", delay=250)
        raise KeyError(how) if how == "key" else ValueError(how)

    key, value, retry = (send(fall.message(how)) for how in ("key", "value", "retry"))
    assert key.error is not None
    assert not key.error.retryable
    assert value.error is not None
    assert value.error.retryable
    assert (retry.kind, retry.retry_after_ms) == ("retry", 250)


def test_a_value_that_nobody_keeps_may_be_anything(broker: StubBroker) -> None:
    @dramatiq.actor
    def thing() -> object:
        return object()

    free = send(thing.message())
    assert (free.kind, free.result) == ("completed", None)
    kept = send(thing.message_with_options(pipe_target={"some": "message"}))
    assert (kept.kind, kept.error.type if kept.error else None) == ("failed", "BadResult")


def test_an_actors_soft_limit_is_dramatiqs(broker: StubBroker) -> None:
    @dramatiq.actor
    def idle() -> None: ...

    given = assignment("idle", message=idle.message().encode())
    assert body.stop_exception(given, "limit") is TimeLimitExceeded
    cancelled = body.stop_exception(given, "cancel")
    assert issubclass(cancelled, Cancelled)
    assert issubclass(cancelled, dramatiq.middleware.Interrupt)
    assert body.execute(given, Here("limit", TimeLimitExceeded())).kind == "timeout"


@pytest.mark.parametrize(("message", "retryable"), [(b"no json", False), (b"{}", False)])
def test_an_undecodable_message_fails_for_good(broker: StubBroker, message: bytes, retryable: bool) -> None:
    error = body.execute(assignment("any", message=message), Here()).error
    assert error is not None
    assert error.retryable is retryable


def test_an_unknown_actor_may_be_known_elsewhere(broker: StubBroker) -> None:
    message: dramatiq.Message[Any] = dramatiq.Message(
        queue_name="q", actor_name="nobody", args=(), kwargs={}, options={}
    )
    error = send(message).error
    assert error is not None
    assert (error.type, error.retryable) == ("ActorNotFound", True)
