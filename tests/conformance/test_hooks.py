"""Dramatiq's middleware on our broker: hooks in their order, and nothing lost that they send."""

from __future__ import annotations

import threading
from collections.abc import Callable

import dramatiq
import pytest
from dramatiq.middleware import CurrentMessage, SkipMessage

from tests.conformance.hooked import hooked
from tests.support.waiting import wait_until

_JOIN_MS = 15_000


def teller(told: list[str], name: str) -> Callable[..., None]:
    return lambda *_, **__: told.append(name)


ENDS = ("before_ack", "after_ack", "before_nack", "after_nack", "after_skip_message")


@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
def test_hooks_come_in_dramatiqs_order(redis_broker, redis_worker, good) -> None:
    told: list[str] = []
    names = (*ENDS, "before_process_message", "after_process_message")
    hooked(redis_broker, **{name: teller(told, name) for name in names})

    @dramatiq.actor(max_retries=0)
    def work():
        told.append("body")
        if not good:
            raise RuntimeError("no way")

    work.send()
    end = "ack" if good else "nack"
    wait_until(lambda: f"after_{end}" in told, 10)
    assert told == [
        "before_process_message", "body", "after_process_message", f"before_{end}", f"after_{end}"
    ]  # fmt: skip


def test_after_ack_comes_when_the_end_is_recorded(redis_broker, redis_worker, record) -> None:
    seen: list[str] = []
    hooked(redis_broker, after_ack=lambda broker, message: seen.append(record(message).state))

    @dramatiq.actor
    def work():
        pass

    for _ in range(20):
        work.send()
    wait_until(lambda: len(seen) == 20, 10)
    assert set(seen) == {"completed"}


def test_a_message_that_a_hook_skips_is_done(redis_broker, redis_worker, record) -> None:
    told: list[str] = []

    def skip(broker, message):
        raise SkipMessage("not today")

    hooked(redis_broker, before_process_message=skip, **{name: teller(told, name) for name in ENDS})

    @dramatiq.actor
    def work():
        told.append("body")

    message = work.send()
    wait_until(lambda: "after_ack" in told, 10)
    assert told == ["after_skip_message", "before_ack", "after_ack"]
    assert (record(message).state, record(message).result) == ("completed", None)


def test_a_hook_can_reject_a_message(redis_broker, redis_worker, record) -> None:
    hooked(redis_broker, before_process_message=lambda broker, message: message.fail())
    ran: list[int] = []

    @dramatiq.actor
    def work():
        ran.append(1)

    message = work.send()
    redis_broker.join("default", timeout=_JOIN_MS)
    assert ran == []
    assert (record(message).state, record(message).reason) == ("failed", "permanent")


def test_a_message_too_old_fails_with_that_cause(redis_broker, redis_worker, record) -> None:
    @dramatiq.actor(max_age=1)
    def work():
        raise AssertionError("too late")

    message = work.send_with_options(delay=20)
    redis_broker.join("default", timeout=_JOIN_MS)
    kept = record(message)
    assert (kept.state, kept.reason, kept.error["type"]) == ("failed", "permanent", "SkipMessage")


def test_a_hook_may_put_a_message_off(redis_broker, redis_worker, record) -> None:
    """A common recipe of limiters: enqueue the message once more and skip it now."""
    offs: list[int] = []

    def put_off(broker, message):
        if len(offs) < 3:
            offs.append(message.options.setdefault("offs", 0))
            message.options["offs"] += 1
            broker.enqueue(message, delay=10)
            raise SkipMessage("later")

    hooked(redis_broker, before_process_message=put_off)
    runs: list[int] = []

    @dramatiq.actor(max_retries=0)
    def work():
        runs.append(1)

    message = work.send()
    wait_until(lambda: record(message).state == "completed", 10)
    assert offs == [0, 1, 2], "options travel along"
    assert runs == [1]
    assert record(message).attempt == 1, "it costs no attempt"


def test_a_hook_may_send_a_message_round_again(redis_broker, redis_worker, record) -> None:
    def again(broker, message, *, result=None, exception=None):
        if result != "done":
            broker.enqueue(message, delay=5)

    hooked(redis_broker, after_process_message=again)
    runs: list[int] = []

    @dramatiq.actor
    def poll():
        runs.append(1)
        return "done" if len(runs) == 4 else None

    message = poll.send()
    wait_until(lambda: record(message).state == "completed", 10)
    assert len(runs) == 4
    assert record(message).result == "done"


def test_a_body_may_send_its_own_message_again(redis_broker, redis_worker) -> None:
    redis_broker.add_middleware(CurrentMessage())
    runs: list[int] = []

    @dramatiq.actor
    def work():
        runs.append(1)
        if len(runs) < 3:
            redis_broker.enqueue(CurrentMessage.get_current_message(), delay=5)

    work.send()
    wait_until(lambda: len(runs) == 3, 10)
    redis_broker.join("default", timeout=_JOIN_MS)
    assert len(runs) == 3


def test_enqueue_hooks_see_retries_and_follow_ups(redis_broker, redis_worker) -> None:
    sent: list[tuple[str, bool]] = []
    of_the_worker: list[tuple[str, bool]] = []

    def after_enqueue(broker, message, delay):
        # Of two lists, since a worker may have overtaken the hook of who sent: it comes after the sending.
        mine = threading.current_thread() is threading.main_thread()
        (sent if mine else of_the_worker).append((message.actor_name, delay is not None))

    hooked(redis_broker, after_enqueue=after_enqueue)
    runs: list[str] = []

    @dramatiq.actor(max_retries=1, min_backoff=1, max_backoff=1)
    def work():
        runs.append("work")
        if len(runs) == 1:
            raise RuntimeError("once")
        return 1

    @dramatiq.actor
    def after(number=None):
        runs.append("after")

    (work.message() | after.message()).run()
    redis_broker.join("default", timeout=_JOIN_MS)
    assert runs == ["work", "work", "after"]
    assert sent == [("work", False)]
    assert of_the_worker == [("work", True), ("after", False)]


def test_options_that_no_encoder_takes_fail_with_the_cause(redis_broker, redis_worker, record) -> None:
    hooked(
        redis_broker,
        before_process_message=lambda broker, message: message.options.update(lock=threading.Lock()),
    )

    @dramatiq.actor(max_retries=3, min_backoff=1)
    def work():
        raise RuntimeError("the body's own")

    message = work.send()
    redis_broker.join("default", timeout=_JOIN_MS)
    kept = record(message)
    assert (kept.state, kept.reason) == ("failed", "permanent")
    assert "lock" in kept.error["message"]
