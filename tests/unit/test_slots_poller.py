"""The thread that waits for descriptors."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from callboard_worker.slots.poller import Poller
from tests.support.waiting import wait_until


@pytest.fixture
def poller() -> Iterator[Poller]:
    poller = Poller("test-poller")
    yield poller
    poller.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    receiver, sender = os.pipe()
    yield receiver, sender
    for descriptor in (receiver, sender):
        os.close(descriptor)


def test_a_callback_comes_in_the_pollers_thread(poller: Poller, pipe: tuple[int, int]) -> None:
    read: list[tuple[str, bytes]] = []
    receiver, sender = pipe
    poller.watch(receiver, lambda: read.append((threading.current_thread().name, os.read(receiver, 10))))
    os.write(sender, b"hello")
    wait_until(lambda: read, description="the callback")
    assert read == [("test-poller", b"hello")]
    poller.unwatch(receiver)


def test_a_callback_that_unwatches_is_not_called_again(poller: Poller, pipe: tuple[int, int]) -> None:
    calls: list[str] = []
    receiver, sender = pipe

    def once() -> None:
        # Nothing is read, so the descriptor stays ready.
        calls.append("called")
        poller.unwatch(receiver, lambda: calls.append("unwatched"))

    poller.watch(receiver, once)
    os.write(sender, b"x")
    wait_until(lambda: "unwatched" in calls, description="the end of watching")
    done = threading.Event()
    poller.soon(done.set)
    assert done.wait(10)
    assert calls == ["called", "unwatched"]


def test_a_descriptor_is_not_closed_before_those_who_want_to_watch_it_had_their_turn(
    poller: Poller, pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    """Given a callback that closes a descriptor which somebody else has just asked to watch
    When both have had their turn
    I expect no error, and nothing registered under a number that may be another's by then.
    """
    receiver, sender = pipe
    extra = os.dup(receiver)
    closed = threading.Event()

    def close() -> None:
        os.close(extra)
        closed.set()

    def close_the_extra_one() -> None:
        poller.unwatch(receiver)
        poller.watch(extra, lambda: None)
        poller.unwatch(extra, close)

    poller.watch(receiver, close_the_extra_one)
    os.write(sender, b"x")
    assert closed.wait(10)
    done = threading.Event()
    poller.soon(done.set)
    assert done.wait(10)
    assert caplog.text == ""


def test_a_callback_that_fails_ends_nothing(
    poller: Poller, pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()

    def fail() -> None:
        raise ZeroDivisionError

    poller.soon(fail)
    poller.soon(done.set)
    assert done.wait(10)
    assert "ZeroDivisionError" in caplog.text


def test_closing_does_what_was_asked_for_first(pipe: tuple[int, int]) -> None:
    poller = Poller("closing")
    calls: list[int] = []
    for number in range(100):
        poller.soon(partial(calls.append, number))
    poller.close()
    poller.close()
    assert calls == list(range(100))
    assert "closing" not in {thread.name for thread in threading.enumerate()}
